/** `sift parse`: the assistant's message that the text of a completion stands for, as JSON. */
import type { CommandModule } from '../../infra/program.ts';
import { UsageError, UserError } from '../../infra/user-error.ts';
import { nothingComputed } from '../engine/request.ts';
import { gatherChat } from '../http/response/chat-response.ts';
import { createToolCallParsers } from '../http/response/tool-calls.ts';
import { openText } from '../open-text.ts';
import { readTextFile } from './read-text-file.ts';

interface Flags {
  readonly model?: string;
  readonly completion?: string;
  readonly thinking?: boolean;
}

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--model <directory>', 'checkpoint whose way of writing tool calls is meant')
    .option('--completion <file>', 'text as the model wrote it, control tokens included')
    .option('--thinking', 'the prompt has opened the reasoning, so the text begins inside of it')
    .action(printMessage);
};

async function printMessage({ model, completion, thinking = false }: Flags): Promise<void> {
  if (!model) throw new UsageError('--model is missing');
  if (!completion) throw new UsageError('--completion is missing');
  const written = readTextFile('--completion', completion);
  const { tokenizer, chatTemplate } = await openText(model);
  const { reasoningEndToken, fencesToolArguments: isFenced } = chatTemplate;
  if (thinking && reasoningEndToken === null) {
    throw new UserError(`the model in ${model} has no token that ends reasoning`);
  }
  const textOf = (token: number): string => tokenizer.decode([token], { skipSpecial: false });
  const text = splitAt(written, tokenizer.endTokens.map(textOf)).before;
  const split =
    thinking && reasoningEndToken !== null
      ? splitAt(text, [textOf(reasoningEndToken)])
      : { before: '', after: text };
  const answer = await gatherChat(eventsOf({ reasoning: split.before, text: split.after }), {
    head: { id: '', created: 0, model, system_fingerprint: '' },
    choices: 1,
    thinking,
    logprobs: false,
    promptLogprobs: null,
    toolParsers: createToolCallParsers('0', { choices: 1, form: { toolNames: [], isFenced } }),
  });
  process.stdout.write(`${JSON.stringify(answer.choices[0]?.message, null, 2)}\n`);
}

/** The text before and after the first of the marks; all of it is before where there is none. */
function splitAt(text: string, marks: readonly string[]): { before: string; after: string } {
  const found = marks.map((mark) => ({ at: text.indexOf(mark), end: mark.length }));
  const [first] = found.filter(({ at }) => at >= 0).toSorted((a, b) => a.at - b.at);
  if (first === undefined) return { before: text, after: '' };
  return { before: text.slice(0, first.at), after: text.slice(first.at + first.end) };
}

/** Makes the events by which the engine would tell of such an answer. */
async function* eventsOf(answer: Readonly<Record<'reasoning' | 'text', string>>) {
  const head = { id: '', choice: 0, usage: nothingComputed };
  for (const channel of ['reasoning', 'text'] as const) {
    const text = answer[channel];
    if (text === '') continue;
    yield { ...head, kind: 'output' as const, channel, text, tokens: [], logprobs: null };
  }
  yield { ...head, kind: 'finished' as const, reason: 'stop' as const, stopMatch: null };
}
