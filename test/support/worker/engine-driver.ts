/** Drives an `EngineLoop` over the hash model, and makes requests for it. */
import { at } from '../../../gpu-worker/at.ts';
import { createHashModel } from './hash-model.ts';
import type { HashModel, HashModelOptions } from './hash-model.ts';
import { EngineLoop } from '../../../gpu-worker/engine/engine.ts';
import type { EngineLimits } from '../../../gpu-worker/engine/engine.ts';
import type { TokenText } from '../../../gpu-worker/engine/output.ts';
import type {
  EngineEvent,
  EngineRequest,
  SamplingOptions,
} from '../../../gpu-worker/engine/request.ts';

export const endToken = 1;

export const plainSampling: SamplingOptions = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: [],
};

/** Each token is one letter: 0 is `a`, 26 is `a` again, and so on; the end token has no text. */
export const letterText: TokenText = {
  createDetokenizer: () => ({
    push: (token) => (token === endToken ? '' : letterOf(token)),
    flush: () => '',
  }),
  tokenBytes: (token) => Buffer.from(letterOf(token)),
  controlTokens: new Map([['<end>', endToken]]),
};

export function letterOf(token: number): string {
  return String.fromCharCode(97 + (token % 26));
}

export interface Driver {
  readonly engine: EngineLoop;
  readonly model: HashModel;
}

export function createDriver(
  options: Partial<HashModelOptions & EngineLimits> & { tokenText?: TokenText } = {},
): Driver {
  const stepTokensMax = options.stepTokensMax ?? 96;
  const model = createHashModel({
    vocabSize: options.vocabSize ?? 64,
    contextLength: options.contextLength ?? 1024,
    blocks: options.blocks ?? 64,
    rowsMax: options.rowsMax ?? stepTokensMax,
    logitRowsMax: options.logitRowsMax ?? 4,
    ...(options.poisonToken === undefined ? {} : { poisonToken: options.poisonToken }),
  });
  let nowMs = 0;
  const engine = new EngineLoop(
    {
      model,
      tokenText: options.tokenText ?? letterText,
      endTokens: [endToken],
      drawSeed: () => 12_345,
      nowMs: () => (nowMs += 10),
    },
    {
      stepTokensMax,
      mixedTokensMax: options.mixedTokensMax ?? stepTokensMax,
      sequencesMax: options.sequencesMax ?? 8,
      waitingMax: options.waitingMax ?? 64,
    },
  );
  return { engine, model };
}

export function createRequest(options: Partial<EngineRequest> & { id: string }): EngineRequest {
  return {
    promptTokens: Int32Array.of(2, 3, 4),
    cacheSalt: 'salt',
    fairScope: options.cacheSalt ?? 'salt',
    choices: 1,
    sampling: plainSampling,
    outputTokensMax: 8,
    stopStrings: [],
    stopTokens: [],
    ignoreEnd: true,
    logprobs: null,
    promptLogprobs: null,
    reasoningEndToken: null,
    grammar: null,
    ...options,
  };
}

/** A prompt of pseudo-random tokens that never contain the end token. */
export function createPrompt(length: number, seed = 1): Int32Array {
  let state = seed * 2654435761;
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 2 + ((state >>> 8) % 40);
  });
}

/** Steps until nothing is in flight; fails where that takes more than `stepsMax` steps. */
export function runToEnd(engine: EngineLoop, stepsMax = 10_000): EngineEvent[] {
  const events: EngineEvent[] = [];
  for (let step = 0; !engine.isIdle; step++) {
    if (step === stepsMax) throw new Error(`still busy after ${stepsMax} steps`);
    events.push(...engine.step());
  }
  return events;
}

/** The events of one request that runs with nothing else in an engine with room for all of it. */
export function runAlone(
  request: EngineRequest,
  options: Parameters<typeof createDriver>[0] = {},
): EngineEvent[] {
  const roomy = { blocks: 256, stepTokensMax: 2048, sequencesMax: 8 };
  const { engine } = createDriver({ ...options, ...roomy });
  return [...engine.submit(request), ...runToEnd(engine)];
}

export function eventsOf(events: readonly EngineEvent[], id: string): EngineEvent[] {
  return events.filter((event) => event.id === id);
}

/** Output tokens per choice. */
export function tokensOf(events: readonly EngineEvent[], id: string): number[][] {
  const tokens: number[][] = [];
  for (const event of eventsOf(events, id)) {
    if (event.kind === 'output') (tokens[event.choice] ??= []).push(...event.tokens);
  }
  return tokens;
}

export function textOf(events: readonly EngineEvent[], id: string, choice = 0): string {
  return eventsOf(events, id)
    .map((event) => (event.kind === 'output' && event.choice === choice ? event.text : ''))
    .join('');
}

export function endOf(events: readonly EngineEvent[], id: string): EngineEvent & { kind: 'end' } {
  const ends = events.flatMap((event) => (event.id === id && event.kind === 'end' ? [event] : []));
  if (ends.length !== 1) throw new Error(`${id} ended ${ends.length} times`);
  return at(ends, 0);
}
