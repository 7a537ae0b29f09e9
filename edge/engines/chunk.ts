/**
 * One event of an answer in the one form that the edge knows, whichever engine sent it: OpenAI's,
 * with DeepSeek's reasoning and vLLM's stop reason. Encoders and builders read nothing else.
 */

export interface Chunk {
  readonly object?: string;
  readonly created?: number;
  readonly system_fingerprint?: string;
  readonly prompt_logprobs?: unknown;
  readonly choices: readonly Choice[];
}

export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';

/** Money ran out while the answer was made. */
export type StopCode = 'insufficient_balance' | 'budget_exhausted';

/** A piece of one answer; only those pieces come that hold something. */
export interface Choice {
  readonly index: number;
  /** The text of a chat completion. */
  readonly delta?: Delta;
  /** The text of a completion. */
  readonly text?: string;
  readonly logprobs: Logprobs | null;
  readonly finish_reason: FinishReason | null;
  /** The request's own stop string or stop token that ended the answer, where the engine says. */
  readonly stop_reason?: string | number;
  /** The edge ended the answer for want of money. */
  readonly stopped_by?: StopCode;
  readonly prompt_logprobs?: unknown;
}

export interface Delta {
  /** The role is stated in the first piece of each answer. */
  readonly role?: 'assistant';
  readonly content?: string;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly ToolCallPiece[];
}

/** The first piece of a call has its id and its name; later ones only continue the arguments. */
export interface ToolCallPiece {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function: { readonly name?: string; readonly arguments: string };
}

/** Log-probabilities by field: entries of tokens, or the parallel arrays of a completion. */
export type Logprobs = Readonly<Record<string, readonly unknown[] | null>>;
