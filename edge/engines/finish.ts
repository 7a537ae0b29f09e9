/** Reads why an answer ended: the reason, and which of the request's own stops matched. */
import { z } from 'zod';
import type { FinishReason } from './chunk.ts';

/** Every spelling that is not OpenAI's own, of engines and of their older versions. */
const reasons: Readonly<Record<string, FinishReason>> = {
  stop: 'stop',
  eos: 'stop',
  eos_token: 'stop',
  end_turn: 'stop',
  stop_sequence: 'stop',
  stop_words: 'stop',
  word: 'stop',
  length: 'length',
  limit: 'length',
  max_tokens: 'length',
  max_length: 'length',
  model_length: 'length',
  tool_calls: 'tool_calls',
  tool_call: 'tool_calls',
  tool_use: 'tool_calls',
  function_call: 'tool_calls',
  content_filter: 'content_filter',
};

/** The engine gave the answer up; what it has sent so far is not the whole. */
const broken: ReadonlySet<string> = new Set(['abort', 'aborted', 'cancelled', 'error', 'timeout']);

export type Finish =
  | { readonly kind: 'running' }
  | { readonly kind: 'finished'; readonly reason: FinishReason }
  | { readonly kind: 'broken'; readonly reason: string };

export function readFinish(stated: string | null | undefined, hasCalls: boolean): Finish {
  const word = stated?.trim().toLowerCase() ?? '';
  if (word === '' || word === 'not_finished') return { kind: 'running' };
  if (broken.has(word)) return { kind: 'broken', reason: word };
  const reason = reasons[word] ?? 'stop';
  // Some engines end an answer that calls a function they were told to call with "stop".
  return { kind: 'finished', reason: reason === 'stop' && hasCalls ? 'tool_calls' : reason };
}

/** The strings and tokens that a request asked to be stopped at. */
export interface Stops {
  readonly strings: readonly string[];
  readonly tokens: readonly number[];
}

const stopsSchema = z.looseObject({
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  stop_token_ids: z.array(z.number()).nullish(),
});

export function stopsOf(workerBody: Readonly<Record<string, unknown>>): Stops {
  const { stop, stop_token_ids: tokens } = stopsSchema.parse(workerBody);
  return { strings: typeof stop === 'string' ? [stop] : (stop ?? []), tokens: tokens ?? [] };
}

/**
 * The stop that matched, by whichever name the engine has for it. Engines also name the end of the
 * turn, as text or as a token's id, which no client asked for, so only the request's own stops
 * count.
 */
export function matchedStop(
  choice: Readonly<Record<'stop_reason' | 'matched_stop' | 'stopping_word', unknown>>,
  stops: Stops,
): string | number | undefined {
  return [choice.stop_reason, choice.matched_stop, choice.stopping_word]
    .flat()
    .find((each): each is string | number =>
      typeof each === 'string'
        ? stops.strings.includes(each)
        : typeof each === 'number' && stops.tokens.includes(each),
    );
}
