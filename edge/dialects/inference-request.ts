/** A request of any of the inference routes, once parsed: what the stages need to know of it. */
import type { PromptPart } from '../prefix/chain.ts';

export interface InferenceRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly workerPath: '/v1/chat/completions' | '/v1/completions';
  /** For the worker, without what the edge itself decides: streaming, salt and output limit. */
  readonly workerBody: Readonly<Record<string, unknown>>;
  /** Cached prefixes are shared within it. */
  readonly cacheScope: string;
  /** What the client asked for; null leaves it to the default. */
  readonly outputTokensStated: number | null;
  readonly prompts: number;
  /** Answers to each prompt; each may reach the output limit. */
  readonly answersEach: number;
  /** What the model reads; a prefix is looked for only when there is one prompt. */
  readonly promptParts: readonly PromptPart[];
  /** Of a prompt that came as token ids; null when it came as text. */
  readonly promptTokens: number | null;
  /** Each prompt has it, `promptParts` have it once. */
  readonly suffix: string | null;
  readonly answer: AnswerStyle;
}

/** How the answer is to be written: `formatOf` writes it. */
export type AnswerStyle =
  | {
      readonly protocol: 'chat' | 'text';
      readonly usage: boolean;
      readonly runningUsage: boolean;
      /** To a client that asked for one. */
      readonly tier: 'default' | null;
    }
  | { readonly protocol: 'messages'; readonly hidesThinking: boolean };

/**
 * One writing for the scopes of all protocols, in which no two scopes read alike. Without a user and
 * a salt it is all of the tenant's.
 */
export function cacheScope(of: { readonly userId?: string; readonly salt?: string }): string {
  return JSON.stringify([of.userId ?? null, of.salt ?? null]);
}
