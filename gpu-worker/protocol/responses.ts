/** The answers of a worker, whole and streamed. */
import { z } from 'zod';
import { tokenId, tokenCount } from './fields.ts';
import type { ToolCall } from './messages.ts';
import type { Usage } from './usage.ts';

export type WireFinishReason = 'stop' | 'length' | 'tool_calls';

export interface ChatLogprob {
  /** The token's text; a token that is not UTF-8 by itself is written as `\xe2\x82`. */
  readonly token: string;
  /** Exact, unlike `token`. */
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface ChatTokenLogprob extends ChatLogprob {
  readonly top_logprobs: readonly ChatLogprob[];
}

export interface ChatLogprobs {
  readonly content: readonly ChatTokenLogprob[] | null;
  readonly reasoning_content?: readonly ChatTokenLogprob[];
}

/** vLLM's: per prompt token a map from token id to its logprob; null for the first token. */
export type PromptLogprobs = readonly (Readonly<
  Record<string, { logprob: number; rank: number | null; decoded_token: string }>
> | null)[];

/**
 * OpenAI's older shape: parallel arrays; offsets count the Unicode characters of the choice's text.
 */
export interface CompletionLogprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  readonly text_offset: readonly number[];
}

interface ResponseHead<Kind extends string> {
  readonly id: string;
  readonly object: Kind;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  /** Changes when the model or the backend does. */
  readonly system_fingerprint: string;
}

export interface ChatChoice {
  readonly index: number;
  readonly message: {
    readonly role: 'assistant';
    readonly content: string | null;
    readonly reasoning_content?: string;
    readonly tool_calls?: readonly ToolCall[];
  };
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: WireFinishReason;
  /** vLLM's: the request's own stop string or token that matched; null if none did. */
  readonly stop_reason: string | number | null;
}

export interface ChatCompletion extends ResponseHead<'chat.completion'> {
  readonly choices: readonly ChatChoice[];
  readonly usage: Usage;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** The first delta of a call has its id, type and name; arguments come in pieces. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function: { readonly name?: string; readonly arguments: string };
}

export interface ChatDelta {
  readonly role?: 'assistant';
  readonly content?: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly ToolCallDelta[];
}

export interface ChatCompletionChunk extends ResponseHead<'chat.completion.chunk'> {
  readonly choices: readonly {
    readonly index: number;
    readonly delta: ChatDelta;
    readonly logprobs: ChatLogprobs | null;
    readonly finish_reason: WireFinishReason | null;
    /** Present beside a finish reason. */
    readonly stop_reason?: string | number | null;
  }[];
  /** Absent unless usage was asked for; null in all events but the last without running usage. */
  readonly usage?: Usage | null;
}

export interface CompletionChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finish_reason: WireFinishReason | null;
  /**
   * Present beside a finish reason: the request's own stop string or token that matched, else null.
   */
  readonly stop_reason?: string | number | null;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** Also the shape of a streamed event, which has `usage` only if it was asked for. */
export interface Completion extends ResponseHead<'text_completion'> {
  readonly choices: readonly CompletionChoice[];
  readonly usage?: Usage | null;
}

/** Answer of `POST /tokenize`. */
export const tokenizeResponseSchema = z.looseObject({
  count: tokenCount,
  /** The context length. */
  max_model_len: z.int(),
  tokens: z.array(tokenId),
});

export type TokenizeResponse = z.infer<typeof tokenizeResponseSchema>;

/** The models that any engine lists: some leave out all but the names. */
export const modelListSchema = z.looseObject({
  data: z.array(
    z.looseObject({
      id: z.string(),
      /** vLLM's name of the context length, in tokens. */
      max_model_len: z.int().nullish(),
    }),
  ),
});

export type ModelList = z.infer<typeof modelListSchema>;
