/** `sift render`: the exact prompt that a chat request has, as a worker would compute it. */
import type { CommandModule } from '../../infra/program.ts';
import { UsageError, UserError } from '../../infra/user-error.ts';
import { chatFormats, textOfParts } from '../chat-formats/chat-formats.ts';
import { callSyntaxes } from '../chat-formats/call-syntaxes.ts';
import { encodeV32 } from '../chat-formats/deepseek-v32.ts';
import { ApiError } from '../http/api-error.ts';
import { readConversation, renderChat } from '../http/request/chat-prompt.ts';
import { parseRequest } from '../http/request/parse-request.ts';
import { openText } from '../open-text.ts';
import { chatCompletionRequestSchema } from '../protocol/requests.ts';
import type { ChatCompletionRequest } from '../protocol/requests.ts';
import { InvalidPromptError } from '../tokenizer/content-marks.ts';
import { addFormatFlags, readFormat } from './format-flags.ts';
import type { FormatFlags } from './format-flags.ts';
import { readJsonObject } from './read-text-file.ts';

interface Flags extends FormatFlags {
  readonly request?: string;
  readonly thinking?: true;
  readonly ids?: true;
}

export const configure: CommandModule['configure'] = (program) => {
  addFormatFlags(program);
  program
    .option('--request <file>', 'JSON body of a chat completion; - reads the standard input')
    .option('--thinking', 'ask for reasoning, whatever the request says')
    .option('--ids', 'print the token ids, as a JSON array, in place of the text')
    .action(printPrompt);
};

async function printPrompt(flags: Flags): Promise<void> {
  const { model, request, thinking, ids } = flags;
  const format = readFormat(flags);
  if (!request) throw new UsageError('--request is missing');
  if (ids && !model) throw new UsageError('--ids needs the tokenizer of a --model');
  const body = {
    model: 'the model',
    ...readJsonObject('--request', request),
    ...(thinking && { thinking: { type: 'enabled' } }),
  };
  if (!model) {
    process.stdout.write(textWithoutModel(format ?? 'jinja', body));
    return;
  }
  const text = await openText(model, { chatFormat: format ?? undefined });
  // The context bounds what a worker computes, not what can be rendered.
  const unbounded = { ...text, description: { contextLength: Infinity } };
  const prompt = explained(() => renderChat(unbounded, parseBody(body)));
  // Nothing is added to the text: it may be compared byte by byte.
  process.stdout.write(ids ? `${JSON.stringify([...prompt.tokens])}\n` : prompt.text);
}

/** The prompt of a format that a program writes, which takes no checkpoint. */
function textWithoutModel(format: keyof typeof chatFormats, body: object): string {
  const { isProgram } = chatFormats[format];
  if (!isProgram || format === 'jinja') {
    throw new UsageError(`--model is missing: ${format} is written by a checkpoint's template`);
  }
  const rules = { thinksByDefault: false, efforts: [], showsAsSent: true };
  const own = { ...rules, calls: callSyntaxes[format] };
  return explained(() => textOfParts(encodeV32(readConversation(own, parseBody(body)).chat).parts));
}

function parseBody(body: object): ChatCompletionRequest {
  return parseRequest(chatCompletionRequestSchema, body);
}

function explained<Result>(render: () => Result): Result {
  try {
    return render();
  } catch (error) {
    if (!(error instanceof ApiError || error instanceof InvalidPromptError)) throw error;
    throw new UserError(error.message, { cause: error });
  }
}
