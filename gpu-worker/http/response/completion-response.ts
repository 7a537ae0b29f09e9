/** The engine's events as an answer of the completions API, at once or in chunks. */
import { nothingComputed } from '../../engine/request.ts';
import type { TokenLogprob } from '../../engine/request.ts';
import { WrittenItems } from '../../protocol/json-pieces.ts';
import type {
  Completion,
  CompletionChoice,
  CompletionLogprobs,
  WireFinishReason,
} from '../../protocol/responses.ts';
import { TextOffset, toCompletionLogprobs, toPromptLogprobs } from './wire-logprobs.ts';
import type { PlacedToken } from './wire-logprobs.ts';
import type { ResponseHead, StreamedUsage } from './response-head.ts';
import type { RunEvent } from '../run.ts';
import type { ReadPrompt } from '../text/text-model.ts';
import { toWireUsage } from './wire-usage.ts';

export interface CompletionOptions {
  readonly head: ResponseHead;
  readonly prompts: readonly ReadPrompt[];
  /** n: choices per prompt. */
  readonly choicesEach: number;
  readonly echo: boolean;
  /** Alternatives per token, if logprobs were asked for. */
  readonly logprobs: number | null;
  /** The number of alternatives in vLLM's prompt_logprobs; null without them. */
  readonly promptLogprobs: number | null;
}

/** The text and log-probabilities that one event adds to a choice. */
interface Piece {
  readonly index: number;
  readonly text: string;
  readonly tokens: readonly PlacedToken[] | null;
  readonly finish: WireFinishReason | null;
  readonly stopMatch: string | number | null;
}

/** Chunks of a stream; each `next` waits for the engine. */
export async function* completionChunks(
  events: AsyncIterable<RunEvent>,
  options: CompletionOptions,
  usage: StreamedUsage,
): AsyncGenerator<Completion, void> {
  const head = { ...options.head, object: 'text_completion' as const };
  const offsets = choiceOffsets(options);
  for await (const event of events) {
    if (event.kind === 'end') {
      if (usage.atEnd) yield { ...head, choices: [], usage: toWireUsage(event.usage) };
      return;
    }
    for (const piece of toPieces(event, options)) {
      // Nothing new but the counts: told only to those who follow them.
      const isEmpty = piece.text === '' && piece.tokens === null && piece.finish === null;
      if (isEmpty && !usage.running) continue;
      const choice = toChoice(piece, offsets[piece.index], options.logprobs);
      yield { ...head, choices: [choice], ...usage.during(event.usage) };
    }
  }
}

/**
 * The whole answer as it is written; choices that the client's leaving cut short count as `length`.
 */
export async function gatherCompletion(
  events: AsyncIterable<RunEvent>,
  options: CompletionOptions,
): Promise<WrittenCompletion> {
  const gathered = choiceOffsets(options).map(newGathered);
  let usage = nothingComputed;
  for await (const event of events) {
    usage = event.usage;
    if (event.kind === 'end') continue;
    for (const piece of toPieces(event, options)) {
      const choice = gathered[piece.index];
      if (!choice) continue;
      choice.text += piece.text;
      if (piece.tokens) addLogprobs(choice, piece.tokens, options.logprobs);
      choice.finish = piece.finish ?? choice.finish;
      choice.stopMatch = piece.stopMatch ?? choice.stopMatch;
    }
    if (event.kind === 'prompt' && event.logprobs && options.promptLogprobs !== null) {
      const logprobs = toPromptLogprobs(event.logprobs, options.promptLogprobs);
      for (const choice of choicesOf(event.prompt, options)) {
        const target = gathered[choice];
        if (target) target.extras = { prompt_logprobs: logprobs };
      }
    }
  }
  return {
    ...options.head,
    object: 'text_completion',
    choices: gathered.map(({ text, logprobs, finish, stopMatch, extras }, index) => ({
      index,
      text,
      logprobs: options.logprobs === null ? null : logprobs,
      finish_reason: finish,
      stop_reason: stopMatch,
      ...extras,
    })),
    usage: toWireUsage(usage),
  };
}

type WrittenLogprobs = Readonly<Record<keyof CompletionLogprobs, WrittenItems>>;
type WrittenChoice = Omit<CompletionChoice, 'logprobs'> & {
  readonly logprobs: WrittenLogprobs | null;
};
type WrittenCompletion = Omit<Completion, 'choices'> & {
  readonly choices: readonly WrittenChoice[];
};

interface Gathered {
  readonly offset: TextOffset;
  text: string;
  readonly logprobs: WrittenLogprobs;
  finish: WireFinishReason;
  stopMatch: string | number | null;
  extras: Pick<CompletionChoice, 'prompt_logprobs'>;
}

function newGathered(offset: TextOffset): Gathered {
  const logprobs = {
    tokens: new WrittenItems(),
    token_logprobs: new WrittenItems(),
    top_logprobs: new WrittenItems(),
    text_offset: new WrittenItems(),
  };
  return { offset, text: '', logprobs, finish: 'length', stopMatch: null, extras: {} };
}

/** Written as they come, they take little room, and no time at the end. */
function addLogprobs(
  { offset, logprobs: written }: Gathered,
  tokens: readonly PlacedToken[],
  topCount: number | null,
): void {
  if (topCount === null) return;
  const more = toCompletionLogprobs(tokens, offset, topCount);
  for (const each of more.tokens) written.tokens.push(each);
  for (const each of more.token_logprobs) written.token_logprobs.push(each);
  for (const each of more.top_logprobs) written.top_logprobs.push(each);
  for (const each of more.text_offset) written.text_offset.push(each);
}

function toPieces(
  event: Exclude<RunEvent, { kind: 'end' }>,
  options: CompletionOptions,
): readonly Piece[] {
  switch (event.kind) {
    case 'prompt': {
      const prompt = options.echo ? options.prompts[event.prompt] : undefined;
      const tokens =
        prompt && options.logprobs !== null ? promptTokens(prompt, event.logprobs ?? []) : null;
      return choicesOf(event.prompt, options).map((index) => ({
        index,
        text: prompt?.text ?? '',
        tokens,
        finish: null,
        stopMatch: null,
      }));
    }
    case 'output': {
      const tokens = event.logprobs?.map((entry) => ({ bytes: entry.bytes, entry })) ?? null;
      return [{ index: event.choice, text: event.text, tokens, finish: null, stopMatch: null }];
    }
    case 'finished': {
      if (event.reason === 'aborted') return [];
      const { choice: index, reason: finish, stopMatch } = event;
      return [{ index, text: '', tokens: null, finish, stopMatch }];
    }
  }
}

function promptTokens(
  { firstTokenBytes, hiddenTokens }: ReadPrompt,
  entries: readonly (TokenLogprob | null)[],
): PlacedToken[] {
  return entries.map((entry, position) => ({
    bytes: entry?.bytes ?? firstTokenBytes,
    entry,
    hidden: position < hiddenTokens,
  }));
}

function toChoice(
  piece: Piece,
  offset: TextOffset | undefined,
  logprobs: number | null,
): CompletionChoice {
  const { index, text, tokens, finish, stopMatch } = piece;
  return {
    index,
    text,
    logprobs:
      tokens && offset && logprobs !== null ? toCompletionLogprobs(tokens, offset, logprobs) : null,
    finish_reason: finish,
    ...(finish !== null && { stop_reason: stopMatch }),
  };
}

function choiceOffsets(options: CompletionOptions): TextOffset[] {
  const choices = options.prompts.length * options.choicesEach;
  return Array.from({ length: choices }, () => new TextOffset());
}

/** Indices of a prompt's choices: all of the first prompt's come first. */
function choicesOf(prompt: number, { choicesEach }: CompletionOptions): number[] {
  return Array.from({ length: choicesEach }, (_, choice) => prompt * choicesEach + choice);
}
