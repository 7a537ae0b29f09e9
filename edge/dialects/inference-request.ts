/** A request of any dialect, once parsed: all that the stages need to know of it. */
import type { PromptPart } from '../prefix/chain.ts';

/**
 * `Answer` says how the answer is to be written; only the route that parsed the request reads it.
 */
export interface InferenceRequest<Answer = unknown> {
  readonly model: string;
  readonly stream: boolean;
  readonly workerPath: '/v1/chat/completions' | '/v1/completions';
  /** The worker's body without what the edge decides: streaming, salt and output limit. */
  readonly workerBody: Readonly<Record<string, unknown>>;
  /** Cached prefixes are shared within it. */
  readonly cacheScope: string;
  /** The limit that the client asked for; null leaves it to the default. */
  readonly outputTokensStated: number | null;
  readonly prompts: number;
  /** Answers to each prompt; each may reach the output limit. */
  readonly answersEach: number;
  /** All that the model reads. A prefix is looked for only when there is one prompt. */
  readonly promptParts: readonly PromptPart[];
  /** The length of a prompt that came as token ids; null when it came as text. */
  readonly promptTokens: number | null;
  /** A suffix that each prompt has; `promptParts` have it once. */
  readonly suffix: string | null;
  /** true where a stream ends with all of its answer once more. */
  readonly endsWhole?: true;
  /** The stored responses and items that the request goes on from. */
  readonly storedNames?: StoredNames;
  /** Plain data: it may come from another thread. */
  readonly answer: Answer;
}

/** The names that a request has for responses and items that its tenant has stored. */
export interface StoredNames {
  readonly previousId: string | null;
  readonly itemIds: readonly string[];
}

/** The stored items under those names, as JSON: plain data that may go to another thread. */
export interface EarlierItems {
  /** The items of the responses that the request goes on from, oldest first. */
  readonly history: string;
  /** Single items by their ids. */
  readonly items: Readonly<Record<string, string>>;
}

/** The facts that reading a request depends on beside its bytes. */
export interface ReadContext {
  /** Responses are stored unless the request says otherwise. */
  readonly storesUnasked: boolean;
  /** null until it is known what the request names. */
  readonly earlier: EarlierItems | null;
}

/**
 * Writes a scope so that no two scopes of any dialect read alike. Without a user and a salt the
 * scope is the whole tenant.
 */
export function cacheScope(of: { readonly userId?: string; readonly salt?: string }): string {
  return JSON.stringify([of.userId ?? null, of.salt ?? null]);
}
