/** `sift parse`: the assistant's message that the text of a completion stands for, as JSON. */
import type { CommandModule } from '../../infra/program.ts';
import { UsageError, UserError } from '../../infra/user-error.ts';
import { argumentTypes } from '../chat-formats/argument-types.ts';
import { addToCalls } from '../chat-formats/call-parser.ts';
import type { CallParser, OutputEnd } from '../chat-formats/call-parser.ts';
import { callSyntaxes } from '../chat-formats/call-syntaxes.ts';
import type { CallForm, CallSyntax } from '../chat-formats/chat-format.ts';
import { chatFormats } from '../chat-formats/chat-formats.ts';
import { ApiError } from '../http/api-error.ts';
import { parseRequest } from '../http/request/parse-request.ts';
import { openText } from '../open-text.ts';
import type { ToolCall } from '../protocol/messages.ts';
import { chatCompletionRequestSchema } from '../protocol/requests.ts';
import { addFormatFlags, readFormat } from './format-flags.ts';
import type { FormatFlags } from './format-flags.ts';
import { readJsonObject, readTextFile } from './read-text-file.ts';

const thinkBegin = '<think>';
const thinkEnd = '</think>';

interface Flags extends FormatFlags {
  readonly completion?: string;
  readonly request?: string;
  readonly thinking?: boolean;
}

export const configure: CommandModule['configure'] = (program) => {
  addFormatFlags(program);
  program
    .option(
      '--completion <file>',
      'text as the model wrote it, control tokens included; - reads the standard input',
    )
    .option('--request <file>', 'the request that was answered: its tools tell types of arguments')
    .option('--thinking', 'the prompt has opened the reasoning, so the text begins inside of it')
    .action(printMessage);
};

async function printMessage(flags: Flags): Promise<void> {
  const { completion, request, thinking = false } = flags;
  if (!completion) throw new UsageError('--completion is missing');
  const format = await openFormat(flags);
  const written = readTextFile('--completion', completion);
  if (thinking && !format.thinks) {
    throw new UserError(`the model in ${flags.model} has no token that ends reasoning`);
  }
  const { before: said, mark } = splitAt(written, format.ends);
  // A text without an end was cut: the model would have gone on.
  const end: OutputEnd = mark === null ? 'cut' : 'complete';
  const tools = request === undefined ? [] : toolsOf(request);
  const parser = format.calls?.createParser('call-0-0', tools) ?? null;
  const message = readMessage(said, { parser, thinking, end });
  process.stdout.write(`${JSON.stringify({ role: 'assistant', ...message }, null, 2)}\n`);
}

interface Format {
  readonly calls: CallSyntax | null;
  /** Strings that end an answer. */
  readonly ends: readonly string[];
  readonly thinks: boolean;
}

async function openFormat(flags: Flags): Promise<Format> {
  const named = readFormat(flags);
  if (!flags.model) {
    const name = named ?? 'jinja';
    const calls = name === 'jinja' ? null : callSyntaxes[name];
    return { calls, ends: chatFormats[name].ends, thinks: true };
  }
  const { tokenizer, chatFormat } = await openText(flags.model, {
    chatFormat: named ?? undefined,
  });
  const textOf = (token: number): string => tokenizer.decode([token], { skipSpecial: false });
  return {
    calls: chatFormat.calls,
    ends: tokenizer.endTokens.map(textOf),
    thinks: chatFormat.reasoningEndToken !== null,
  };
}

/** @throws UserError naming what is wrong with the request */
function toolsOf(file: string): CallForm['tools'] {
  const body = { model: 'the model', ...readJsonObject('--request', file) };
  try {
    const { tools } = parseRequest(chatCompletionRequestSchema, body);
    return (tools ?? []).map(({ function: { name, parameters } }) => ({
      name,
      types: argumentTypes(parameters),
    }));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    throw new UserError(error.message, { cause: error });
  }
}

/** Calls are looked for in the reasoning too: some models call straight out of it. */
function readMessage(
  said: string,
  { parser, thinking, end }: { parser: CallParser | null; thinking: boolean; end: OutputEnd },
): { content: string; reasoning_content: string; tool_calls: ToolCall[] } {
  const calls: ToolCall[] = [];
  const read = (text: string, textEnd: OutputEnd): string => {
    if (parser === null) return text;
    const outputs = [parser.push(text), parser.flush(textEnd)];
    for (const output of outputs) addToCalls(calls, output.calls);
    return outputs.map((output) => output.text).join('');
  };
  const opened = said.startsWith(thinkBegin) ? said.slice(thinkBegin.length) : said;
  const { before, after, mark } = thinking
    ? splitAt(opened, [thinkEnd])
    : { before: '', after: said, mark: thinkEnd };
  const reasoning = read(before, mark === null ? end : 'complete');
  const content = mark === null ? '' : read(after, end);
  return { content, reasoning_content: reasoning, tool_calls: calls };
}

/** The text before and after the first of the marks; all of it is before where there is none. */
function splitAt(text: string, marks: readonly string[]) {
  const found = marks.map((mark) => ({ at: text.indexOf(mark), mark }));
  const [first] = found.filter(({ at }) => at >= 0).toSorted((a, b) => a.at - b.at);
  if (first === undefined) return { before: text, after: '', mark: null };
  const { at, mark } = first;
  return { before: text.slice(0, at), after: text.slice(at + mark.length), mark };
}
