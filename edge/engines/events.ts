/**
 * The one place where the events of an engine's stream, of any make, become ours. It keeps what
 * must be known across events: which answers have begun and ended, their tool calls, the counts so
 * far.
 */
import { z } from 'zod';
import { parseJson } from './bounded-json.ts';
import type { ApiError } from '../errors.ts';
import type { Usage } from '../money.ts';
import { createChoiceReader, parseChoice } from './choice.ts';
import type { AnswerKind, ChoiceReader } from './choice.ts';
import type { Choice, Chunk } from './chunk.ts';
import type { Secrets } from './error-message.ts';
import { readError } from './errors.ts';
import type { Stops } from './finish.ts';
import { TextEvents } from './text-events.ts';
import type { TextRun } from './text-events.ts';
import { cachedTokens, fromWorkerUsage, readCounts } from './usage.ts';

export type EngineEvent =
  | {
      readonly kind: 'chunk';
      readonly chunk: Chunk;
      /** The count so far; null if this event carries none. */
      readonly usage: Usage | null;
    }
  /** `[DONE]`. */
  | { readonly kind: 'done' }
  /** The request is at fault. */
  | { readonly kind: 'rejected'; readonly error: ApiError }
  | { readonly kind: 'failed'; readonly reason: string };

export interface DialectOptions {
  readonly kind: AnswerKind;
  readonly requestId: string;
  readonly stops: Stops;
  /** Answers asked for: a stream without `[DONE]` is whole once all of them have ended. */
  readonly answers: number;
  readonly reportsCachedTokens: boolean;
  /** Texts that no error may repeat to the client. */
  readonly secrets: Secrets;
  /** Nobody reads the count of each event: those that only add text may come as runs. */
  readonly joinsTexts?: boolean;
}

/** Events that only add text, one after another; the count is that of the last. */
export interface CountedRun extends TextRun {
  readonly usage: Usage | null;
}

export interface SentEvent {
  readonly name?: string | undefined;
  readonly data: string;
}

export interface EventReader {
  /** true if the event only adds text: it is then part of a run, and need not be read. */
  takeText(event: SentEvent): boolean;
  /** The run so far, to be asked for before another event is read; null if there is none. */
  endRun(): CountedRun | null;
  read(event: SentEvent): EngineEvent;
  /** true if nothing is missing, should the stream end now. */
  isWhole(): boolean;
}

const eventSchema = z.looseObject({
  choices: z.array(z.unknown()).nullish(),
  object: z.string().optional().catch(undefined),
  created: z.number().optional().catch(undefined),
  system_fingerprint: z.string().optional().catch(undefined),
  prompt_logprobs: z.unknown().optional(),
});
type EngineStreamEvent = z.infer<typeof eventSchema>;

export function createEventReader(options: DialectOptions): EventReader {
  const choices = createChoices(options);
  /** Engines that state cached tokens in some events leave them out of others. */
  let cached: number | null = null;
  let counted = false;
  const texts = options.joinsTexts === true ? new TextEvents() : null;

  const readUsage = (json: unknown): Usage | null => {
    const counts = readCounts(json);
    if (counts === null) return null;
    counted = true;
    cached = cachedTokens(counts) ?? cached;
    const stated = { ...counts, prompt_tokens_details: { cached_tokens: cached } };
    return fromWorkerUsage(stated, options);
  };

  const parse = ({ name, data }: SentEvent): EngineEvent => {
    const json = parseJson(data);
    const error = readError(name === 'error' ? asError(json ?? data) : json, {
      status: null,
      secrets: options.secrets,
    });
    if (error?.kind === 'failed') return error;
    if (error) return { kind: 'rejected', error: error.error };
    if (json === undefined) return failed('it sent an event that is not JSON');
    const event = eventSchema.safeParse(json).data;
    if (!event) return failed('it sent an event that is no part of an answer');
    try {
      return choices.read(event, readUsage(json));
    } catch (cause) {
      if (cause instanceof z.ZodError) return failed('it sent counts of tokens that are none');
      throw cause;
    }
  };

  const parseAgain = (data: string): Chunk | null => {
    const event = parse({ data });
    return event.kind === 'chunk' ? event.chunk : null;
  };

  return {
    takeText: ({ name, data }) => name === undefined && texts !== null && texts.take(data),
    endRun() {
      const run = texts?.endRun() ?? null;
      if (run === null) return null;
      const { usage, ...others } = run;
      return {
        ...others,
        usage: usage === null ? null : readUsage({ usage: JSON.parse(usage) }),
      };
    },
    read(event) {
      if (event.data.trim() === '[DONE]') return { kind: 'done' };
      const read = parse(event);
      if (read.kind === 'chunk') texts?.learn(event.data, read.chunk, parseAgain);
      return read;
    },
    isWhole: () => counted && choices.haveEnded(),
  };
}

/** The answers of a stream, each of which has a reader of its own. */
function createChoices({ kind, stops, requestId, answers }: DialectOptions) {
  const readers = new Map<number, ChoiceReader>();

  const readerOf = (index: number): ChoiceReader => {
    const known = readers.get(index);
    if (known) return known;
    const callId = (call: number) =>
      `call_${requestId.replaceAll(/[^\w-]/g, '_')}_${index}_${call}`;
    const reader = createChoiceReader(index, { kind, stops, callId });
    readers.set(index, reader);
    return reader;
  };

  return {
    read(event: EngineStreamEvent, usage: Usage | null): EngineEvent {
      const choices: Choice[] = [];
      for (const [position, each] of (event.choices ?? []).entries()) {
        const parsed = parseChoice(each, position);
        if (!parsed) continue;
        const read = readerOf(parsed.index).read(parsed.choice);
        if (read.kind === 'broken') return failed(`it ended an answer with "${read.reason}"`);
        if (read.kind === 'piece') choices.push(read.piece);
      }
      return { kind: 'chunk', chunk: { ...headOf(event), choices }, usage };
    },
    /** true if all that were asked for, and all that began, have ended. */
    haveEnded(): boolean {
      const finished = [...readers.values()].filter((reader) => reader.finished());
      return finished.length === readers.size && finished.length >= answers;
    },
  };
}

function failed(reason: string): EngineEvent {
  return { kind: 'failed', reason };
}

function headOf({ object, created, system_fingerprint, prompt_logprobs }: EngineStreamEvent) {
  return {
    ...(object !== undefined && { object }),
    ...(created !== undefined && { created }),
    ...(system_fingerprint !== undefined && { system_fingerprint }),
    ...(prompt_logprobs != null && { prompt_logprobs }),
  };
}

/** An event by the name of "error" is one, in whatever form it is written. */
function asError(json: unknown): unknown {
  if (typeof json === 'string') return { error: json };
  const isKnown = readError(json, { status: null, secrets: [] }) !== null;
  return isKnown ? json : { error: 'an error without a message' };
}
