/**
 * An engine whose answers are written down in the test: the far side of the thread boundary, for
 * tests of what HTTP makes of its events. It counts, stops and refuses as the contract says, and
 * yields one token per step.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { nothingComputed, nothingCounted } from '../../../gpu-worker/engine/request.ts';
import type {
  Engine,
  EngineCall,
  EngineDescription,
  EngineError,
  EngineEvent,
  EngineRequest,
  TokenLogprob,
} from '../../../gpu-worker/engine/request.ts';

export interface ScriptedToken {
  readonly token: number;
  readonly text: string;
}

export interface Script {
  /**
   * The output of a choice; it ends with `stop`, or with `length` when the request's maximum comes
   * first.
   */
  answer(request: EngineRequest, choice: number): Iterable<ScriptedToken>;
  /** Refuses the request if it returns an error. */
  refuse?(request: EngineRequest): EngineError | null;
  /** Runs before each step; a test holds the engine here, or throws to fail it. */
  beforeStep?(request: EngineRequest, step: number): Promise<void> | void;
  readonly cachedTokens?: number;
  /** The one of the request's own stops that ends an answer which ends by itself. */
  readonly stopMatch?: string | number;
  /** Pause per step. */
  readonly stepMs?: number;
}

export interface ScriptedEngine extends Engine {
  /** The submitted requests, in order. */
  readonly requests: EngineRequest[];
  /** Steps that each request took, by id. */
  readonly steps: Map<string, number>;
  readonly aborted: Set<string>;
  fail(reason: string): void;
  script: Script;
}

export function scriptedEngine(
  script: Script,
  description: Partial<EngineDescription> = {},
  tokenBytes: (token: number) => Uint8Array = (token) => Buffer.from(`<${token}>`),
): ScriptedEngine {
  let failure: string | null = null;
  let running = 0;
  const counters = { promptTokens: 0, cachedTokens: 0, outputTokens: 0, finished: 0, refused: 0 };

  /** Refuses all of them if it refuses one; answers them side by side, an event of each in turn. */
  async function* submit(
    requests: readonly EngineRequest[],
    { signal, onUsage }: EngineCall,
  ): AsyncGenerator<EngineEvent, void> {
    engine.requests.push(...requests);
    const errors = requests.map((request) => engine.script.refuse?.(request) ?? null);
    const error = errors.find((each) => each !== null) ?? null;
    if (error !== null) {
      counters.refused += requests.length;
      for (const { id } of requests) yield { kind: 'end', id, usage: nothingComputed, error };
      return;
    }
    let answers = requests.map((request) => run(request, signal));
    while (answers.length > 0) {
      const nexts = await Promise.all(answers.map((each) => each.next()));
      answers = answers.filter((_, index) => nexts[index]?.done !== true);
      for (const { value: event } of nexts) {
        if (!event) continue;
        onUsage?.(event.id, event.usage);
        yield event;
      }
    }
  }

  async function* run(
    request: EngineRequest,
    signal: AbortSignal,
  ): AsyncGenerator<EngineEvent, void> {
    running++;
    try {
      yield* answer(request, signal);
    } finally {
      running--;
    }
  }

  async function* answer(
    request: EngineRequest,
    signal: AbortSignal,
  ): AsyncGenerator<EngineEvent, void> {
    const { id } = request;
    let usage = nothingComputed;
    const step = async (): Promise<boolean> => {
      const count = (engine.steps.get(id) ?? 0) + 1;
      engine.steps.set(id, count);
      await engine.script.beforeStep?.(request, count);
      if (engine.script.stepMs) await sleep(engine.script.stepMs);
      return !signal.aborted;
    };

    if (await step()) {
      const cachedTokens = engine.script.cachedTokens ?? 0;
      usage = { ...usage, promptTokens: request.promptTokens.length, cachedTokens };
      counters.promptTokens += usage.promptTokens;
      counters.cachedTokens += usage.cachedTokens;
      yield {
        kind: 'prompt',
        id,
        queuedMs: 0,
        usage,
        logprobs: promptLogprobs(request, tokenBytes),
      };
    }
    const choices = Array.from({ length: request.choices }, (_, choice) => ({
      choice,
      tokens: engine.script.answer(request, choice)[Symbol.iterator](),
      made: 0,
      reasoning: request.reasoningEndToken !== null,
    }));
    let open = [...choices];
    while (open.length > 0 && !signal.aborted && (await step())) {
      for (const state of open) {
        const { choice } = state;
        const next = state.made < request.outputTokensMax ? state.tokens.next() : null;
        if (next === null || next.done) {
          open = open.filter((each) => each !== state);
          const reason = next === null ? 'length' : 'stop';
          const stopMatch = reason === 'stop' ? (engine.script.stopMatch ?? null) : null;
          yield { kind: 'finished', id, choice, reason, stopMatch, usage };
          continue;
        }
        const { token, text } = next.value;
        const channel = state.reasoning ? 'reasoning' : 'text';
        state.made++;
        counters.outputTokens++;
        usage = {
          ...usage,
          outputTokens: usage.outputTokens + 1,
          reasoningTokens: usage.reasoningTokens + (state.reasoning ? 1 : 0),
        };
        if (token === request.reasoningEndToken) state.reasoning = false;
        const logprobs =
          request.logprobs === null ? null : [logprobOf(token, text, request.logprobs)];
        yield { kind: 'output', id, choice, channel, text, tokens: [token], logprobs, usage };
      }
    }
    if (open.length > 0) engine.aborted.add(id);
    else counters.finished++;
    for (const { choice } of open) {
      yield { kind: 'finished', id, choice, reason: 'aborted', stopMatch: null, usage };
    }
    yield { kind: 'end', id, usage, error: null };
  }

  const engine: ScriptedEngine = {
    script,
    requests: [],
    steps: new Map(),
    aborted: new Set(),
    description: { ...tinyDescription, ...description },
    submit,
    load: () => ({
      runningSequences: running,
      waitingSequences: 0,
      tokensInFlight: running * 10,
      blocksTotal: 100,
      blocksFree: 100 - running,
      blocksCached: 3,
      counters: {
        ...nothingCounted,
        promptTokens: counters.promptTokens,
        cachedTokens: counters.cachedTokens,
        outputTokens: counters.outputTokens,
        requestsFinished: counters.finished,
        requestsAborted: engine.aborted.size,
        requestsRefused: counters.refused,
      },
    }),
    failure: () => failure,
    fail: (reason) => (failure = reason),
    close: async () => {},
  };
  return engine;
}

/** Made up, but told apart: -1 for the token, -2, -3, ... for its alternatives. */
function logprobOf(token: number, text: string, topCount: number): TokenLogprob {
  return {
    token,
    bytes: [...Buffer.from(text)],
    logprob: -1,
    top: Array.from({ length: topCount }, (_, rank) => ({
      token: token + rank,
      bytes: rank === 0 ? [...Buffer.from(text)] : [0xe2, 0x80 + rank],
      logprob: -1 - rank,
    })),
  };
}

function promptLogprobs(
  request: EngineRequest,
  tokenBytes: (token: number) => Uint8Array,
): (TokenLogprob | null)[] | null {
  const { promptTokens, promptLogprobs: topCount } = request;
  if (topCount === null) return null;
  return Array.from(promptTokens, (token, position) =>
    position === 0
      ? null
      : { ...logprobOf(token, `<${token}>`, topCount), bytes: [...tokenBytes(token)] },
  );
}

export const tinyDescription: EngineDescription = {
  modelType: 'deepseek_v32',
  revision: '0123456789abcdef'.repeat(4),
  backend: 'cpu',
  contextLength: 1024,
  vocabSize: 4096,
  parameters: 1000,
  plan: {
    weightBytes: 1,
    activationBytes: 1,
    cacheBytes: 1,
    limitBytes: 3,
    reservedBytes: 0,
    blocks: 100,
    blockTokens: 64,
    bytesPerToken: 1,
    stepTokensMax: 256,
    mixedTokensMax: 256,
    sequencesMax: 8,
    waitingMax: 16,
  },
  kernels: [],
};
