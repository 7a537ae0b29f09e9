/**
 * The objects that cross between the HTTP thread and the engine thread, all plain, so that they
 * survive structured clone. The HTTP side speaks in these; it knows nothing of blocks, batches or
 * models.
 */
import type { KernelChoice } from '../backend/kernel-choices.ts';
import type { PackedGrammar } from '../grammar/packed-grammar.ts';

export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 keeps all tokens. */
  readonly topK: number;
  readonly minP: number;
  /** Without a seed the engine draws one for the request. Choice i of n uses seed + i. */
  readonly seed: number | null;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** [token, bias] pairs. */
  readonly logitBias: readonly (readonly [number, number])[];
}

export interface EngineRequest {
  /** Unique among the requests in flight. */
  readonly id: string;
  readonly promptTokens: Int32Array;
  /** Prefix blocks are shared only between requests of equal salt. */
  readonly cacheSalt: string;
  /** The unit of fair order. */
  readonly fairScope: string;
  /** n: how many independent continuations. */
  readonly choices: number;
  readonly sampling: SamplingOptions;
  /** A choice has at most so many tokens; 0 only computes the prompt. */
  readonly outputTokensMax: number;
  readonly stopStrings: readonly string[];
  /** Token ids that end a choice besides the model's end token. */
  readonly stopTokens: readonly number[];
  /** Goes on past the model's end token. */
  readonly ignoreEnd: boolean;
  /** Number of alternatives reported per output token; null reports no logprobs. */
  readonly logprobs: number | null;
  /** The same for each prompt token after the first; such a request takes no cached prefix. */
  readonly promptLogprobs: number | null;
  /** Output up to and with this token is reasoning; null when the answer starts at once. */
  readonly reasoningEndToken: number | null;
  /** The grammar of the answer behind any reasoning; null lets it be anything. */
  readonly grammar: PackedGrammar | null;
}

export interface TokenLogprob {
  readonly token: number;
  /** The token's own bytes; a token may hold part of a character. */
  readonly bytes: readonly number[];
  readonly logprob: number;
  readonly top: readonly { token: number; bytes: readonly number[]; logprob: number }[];
}

/** Token counts of a request as it is computed, all choices together: 0 while it is queued. */
export interface EngineUsage {
  /**
   * Prompt tokens that prefill has reached, `cachedTokens` included; once each, however often
   * computed.
   */
  readonly promptTokens: number;
  /** Prompt tokens whose caches were reused, a multiple of 64. */
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** Part of outputTokens. */
  readonly reasoningTokens: number;
}

export const nothingComputed: EngineUsage = {
  promptTokens: 0,
  cachedTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

/** `stop` also covers the model's end token; `stopString` tells which string or token it was. */
export type FinishReason = 'stop' | 'length' | 'aborted';

export type EngineEvent =
  | {
      /** A step has computed more of the prompt, but not all of it. */
      readonly kind: 'prefill';
      readonly id: string;
      readonly usage: EngineUsage;
    }
  | {
      /** The prompt is computed. `logprobs` has one entry per prompt token, null for the first. */
      readonly kind: 'prompt';
      readonly id: string;
      /** Milliseconds from its submission to the beginning of its first step. */
      readonly queuedMs: number;
      readonly usage: EngineUsage;
      readonly logprobs: readonly (TokenLogprob | null)[] | null;
    }
  | {
      /**
       * New output of one choice. Text may be empty while a character or a stop string is
       * incomplete.
       */
      readonly kind: 'output';
      readonly id: string;
      readonly choice: number;
      readonly channel: 'reasoning' | 'text';
      readonly text: string;
      readonly tokens: readonly number[];
      readonly logprobs: readonly TokenLogprob[] | null;
      readonly usage: EngineUsage;
    }
  | {
      readonly kind: 'finished';
      readonly id: string;
      readonly choice: number;
      readonly reason: FinishReason;
      /** The stop string or token that matched, if one of the request's own did. */
      readonly stopMatch: string | number | null;
      readonly usage: EngineUsage;
    }
  | {
      /** Every choice has finished, or the request was refused or failed; nothing follows. */
      readonly kind: 'end';
      readonly id: string;
      readonly usage: EngineUsage;
      readonly error: EngineError | null;
    };

export interface EngineError {
  /**
   * `too-long`: can never fit (context length or cache size). `busy`: the queue is full, try again
   * after `retryAfterSeconds`. `invalid`: a token id or option out of range. `internal`: a bug.
   */
  readonly kind: 'too-long' | 'busy' | 'invalid' | 'internal';
  readonly message: string;
  readonly retryAfterSeconds: number | null;
}

/** The engine's work in flight and its blocks, for /health, /metrics and heartbeats. */
export interface EngineLoad {
  readonly runningSequences: number;
  readonly waitingSequences: number;
  /**
   * Tokens that are still to be computed for the requests in flight: prompts and outputs to come.
   */
  readonly tokensInFlight: number;
  readonly blocksTotal: number;
  /** Blocks that no running sequence holds; some of them hold cached prefixes. */
  readonly blocksFree: number;
  readonly blocksCached: number;
  readonly counters: EngineCounters;
}

/** Totals since start. */
export interface EngineCounters {
  readonly steps: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** Drafted tokens that steps have verified, and those of them that were right. */
  readonly draftTokens: number;
  readonly acceptedDrafts: number;
  readonly preemptions: number;
  readonly evictedBlocks: number;
  readonly requestsFinished: number;
  readonly requestsAborted: number;
  readonly requestsRefused: number;
}

export const nothingCounted: EngineCounters = {
  steps: 0,
  promptTokens: 0,
  cachedTokens: 0,
  outputTokens: 0,
  draftTokens: 0,
  acceptedDrafts: 0,
  preemptions: 0,
  evictedBlocks: 0,
  requestsFinished: 0,
  requestsAborted: 0,
  requestsRefused: 0,
};

/** The engine's model and limits, known once it is ready. */
export interface EngineDescription {
  readonly modelType: string;
  /** SHA-256 over the config and the tensor layout, hex; changes when the model does. */
  readonly revision: string;
  readonly backend: 'cpu' | 'cuda';
  readonly contextLength: number;
  readonly vocabSize: number;
  readonly parameters: number;
  readonly plan: MemoryPlan;
  /** The kernels that ops take for the model's shapes. */
  readonly kernels: readonly KernelChoice[];
}

/** The static plan computed at start; nothing is allocated afterwards. */
export interface MemoryPlan {
  readonly weightBytes: number;
  readonly activationBytes: number;
  readonly cacheBytes: number;
  readonly limitBytes: number;
  /** Kept beside the limit: for CUDA graphs, the driver, and what ops take when first called. */
  readonly reservedBytes: number;
  readonly blocks: number;
  readonly blockTokens: number;
  readonly bytesPerToken: number;
  /** Tokens per step, prefill and decode together. */
  readonly stepTokensMax: number;
  /** Tokens of a step that also decodes. */
  readonly mixedTokensMax: number;
  readonly sequencesMax: number;
  readonly waitingMax: number;
}

export interface EngineCall {
  readonly signal: AbortSignal;
  /** Told of each new count at once, also while nobody takes the events. */
  readonly onUsage?: (id: string, usage: EngineUsage) => void;
}

/**
 * The engine as the HTTP side sees it. `submit` takes all of the requests or refuses all of them,
 * and yields their events, in order of arrival, until each has had its `end`; aborting the signal
 * (or leaving the loop) stops generation within one step, and the events then end with `aborted`.
 */
export interface Engine {
  readonly description: EngineDescription;
  submit(requests: readonly EngineRequest[], call: EngineCall): AsyncIterable<EngineEvent>;
  /** The newest load figures that the engine thread reported; at most one step old. */
  load(): EngineLoad;
  /** Set once the engine has failed; it takes no requests then. */
  failure(): string | null;
  /** Refuses new requests, lets running ones finish for up to `graceMs`, then ends the thread. */
  close(options: { graceMs: number }): Promise<void>;
}
