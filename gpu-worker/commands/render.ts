/** `sift render`: the exact prompt that a chat request has, as a worker would compute it. */
import type { CommandModule } from '../../infra/program.ts';
import { UsageError, UserError } from '../../infra/user-error.ts';
import { ApiError } from '../http/api-error.ts';
import { renderChat } from '../http/request/chat-prompt.ts';
import { parseRequest } from '../http/request/parse-request.ts';
import { openText } from '../open-text.ts';
import { chatCompletionRequestSchema } from '../protocol/requests.ts';
import { readTextFile } from './read-text-file.ts';

interface Flags {
  readonly model?: string;
  readonly request?: string;
  readonly thinking?: true;
  readonly ids?: true;
}

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--model <directory>', 'checkpoint; only its tokenizer and chat template are read')
    .option('--request <file>', 'JSON body of a chat completion')
    .option('--thinking', 'ask for reasoning, whatever the request says')
    .option('--ids', 'print the token ids, as a JSON array, in place of the text')
    .action(printPrompt);
};

async function printPrompt({ model, request, thinking, ids }: Flags): Promise<void> {
  if (!model) throw new UsageError('--model is missing');
  if (!request) throw new UsageError('--request is missing');
  const body = readJsonObject(request);
  const text = await openText(model);
  const prompt = renderOrExplain(text, {
    model: 'the model',
    ...body,
    ...(thinking && { thinking: { type: 'enabled' } }),
  });
  // Nothing is added to the text: it may be compared byte by byte.
  process.stdout.write(ids ? `${JSON.stringify([...prompt.tokens])}\n` : prompt.text);
}

function readJsonObject(file: string): object {
  const text = readTextFile('--request', file);
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError(`--request: ${file} is not JSON: ${reason}`, { cause });
  }
  throw new UsageError(`--request: ${file} holds no JSON object`);
}

function renderOrExplain(text: Awaited<ReturnType<typeof openText>>, body: object) {
  try {
    // The context bounds what a worker computes, not what can be rendered.
    const model = { ...text, description: { contextLength: Infinity } };
    return renderChat(model, parseRequest(chatCompletionRequestSchema, body));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    throw new UserError(error.message, { cause: error });
  }
}
