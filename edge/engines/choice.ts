/** Reads the pieces of one answer, chat completion or completion, as any engine writes them. */
import { z } from 'zod';
import type { Choice, Delta, Logprobs } from './chunk.ts';
import { matchedStop, readFinish } from './finish.ts';
import type { Stops } from './finish.ts';
import { createToolCalls } from './tool-calls.ts';

const choicesMax = 1024;
const text = z.string().nullish();
const logprobsSchema = z.record(z.string(), z.unknown()).nullish().catch(null);

const choiceSchema = z.looseObject({
  index: z
    .int()
    .min(0)
    .max(choicesMax - 1)
    .nullish(),
  delta: z
    .looseObject({
      content: text,
      reasoning_content: text,
      reasoning: text.catch(null),
      tool_calls: z.array(z.unknown()).nullish(),
      /** OpenAI's older name of a single tool call. */
      function_call: z.looseObject({}).nullish(),
    })
    .nullish(),
  text,
  logprobs: logprobsSchema,
  prompt_logprobs: z.unknown().optional(),
  finish_reason: text,
  stop_reason: z.unknown().optional(),
  matched_stop: z.unknown().optional(),
  stopping_word: z.unknown().optional(),
});
type EngineChoice = z.infer<typeof choiceSchema>;

/** Returns null for JSON that is no piece of an answer. */
export function parseChoice(json: unknown, position: number) {
  const choice = choiceSchema.safeParse(json).data;
  return choice ? { index: choice.index ?? position, choice } : null;
}

/** A chat completion or a completion. */
export type AnswerKind = 'chat' | 'text';

export type ChoiceEvent =
  | { readonly kind: 'piece'; readonly piece: Choice }
  | { readonly kind: 'nothing' }
  /** The engine gave the answer up. */
  | { readonly kind: 'broken'; readonly reason: string };

export interface ChoiceReader {
  read(choice: EngineChoice): ChoiceEvent;
  finished(): boolean;
}

export function createChoiceReader(
  index: number,
  options: {
    readonly kind: AnswerKind;
    readonly stops: Stops;
    readonly callId: (call: number) => string;
  },
): ChoiceReader {
  const calls = createToolCalls(options.callId);
  let begun = false;
  let finished = false;

  const readDelta = (stated: NonNullable<EngineChoice['delta']>, ends: boolean): Delta => {
    const pieces =
      stated.tool_calls ?? (stated.function_call ? [{ function: stated.function_call }] : []);
    const toolCalls = [...calls.add(pieces), ...(ends ? calls.flush() : [])];
    const reasoning = stated.reasoning_content || stated.reasoning;
    const content = stated.content ?? '';
    return {
      ...(!begun && { role: 'assistant' as const }),
      ...((content !== '' || (!begun && !reasoning)) && { content }),
      ...(reasoning && { reasoning_content: reasoning }),
      ...(toolCalls.length > 0 && { tool_calls: toolCalls }),
    };
  };

  return {
    read(choice) {
      const ends = Boolean(choice.finish_reason);
      const delta = options.kind === 'text' ? null : readDelta(choice.delta ?? {}, ends);
      const matched = matchedStop(withStops(choice), options.stops);
      // A stop of the request's own that matched within a call leaves the call unfinished.
      const finish = readFinish(choice.finish_reason, calls.any() && matched === undefined);
      if (finish.kind === 'broken') return finish;
      const reason = finish.kind === 'finished' && !finished ? finish.reason : null;
      const logprobs = readLogprobs(choice.logprobs, delta);
      const promptLogprobs = choice.prompt_logprobs ?? null;
      const holds = delta ? Object.keys(delta).length > 0 : Boolean(choice.text);
      if (!holds && reason === null && logprobs === null && promptLogprobs === null) {
        return { kind: 'nothing' };
      }
      begun = true;
      finished ||= reason !== null;
      const stop = reason === 'stop' ? matched : undefined;
      return {
        kind: 'piece',
        piece: {
          index,
          ...(delta ? { delta } : { text: choice.text ?? '' }),
          logprobs,
          finish_reason: reason,
          ...(stop !== undefined && { stop_reason: stop }),
          ...(promptLogprobs !== null && { prompt_logprobs: promptLogprobs }),
        },
      };
    },
    finished: () => finished,
  };
}

function withStops({ stop_reason, matched_stop, stopping_word }: EngineChoice) {
  return { stop_reason, matched_stop, stopping_word };
}

/** Most engines list the logprobs of reasoning as if it were content. */
function readLogprobs(logprobs: EngineChoice['logprobs'], delta: Delta | null): Logprobs | null {
  if (!logprobs) return null;
  const arrays: Record<string, readonly unknown[] | null> = {};
  for (const [field, value] of Object.entries(logprobs)) {
    if (Array.isArray(value) || value === null) arrays[field] = value;
  }
  const { reasoning, ...others } = arrays;
  if (reasoning) others.reasoning_content ??= reasoning;
  const isReasoning = delta?.reasoning_content !== undefined && !delta.content;
  if (isReasoning && others.content && !others.reasoning_content) {
    return { ...others, content: null, reasoning_content: others.content };
  }
  return Object.values(others).some((value) => value !== null) ? others : null;
}
