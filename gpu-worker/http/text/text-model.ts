/**
 * Makes what the engine is asked of a request's bytes, and says what that takes of the model. It
 * happens on threads of its own (text-pool.ts): only what HTTP needs comes back, never the text.
 */
import type { EngineDescription, EngineRequest } from '../../engine/request.ts';
import type { CallForm, ChatFormat } from '../../chat-formats/chat-format.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { OutputGrammars } from '../request/output-grammar.ts';
import type { SamplingDefaults } from '../request/sampling-defaults.ts';

/** The model as far as conversations are rendered by it. */
export interface PromptModel {
  readonly description: Pick<EngineDescription, 'contextLength'>;
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
}

/** The model as far as requests are read by it. */
export interface TextModel extends PromptModel {
  readonly id: string;
  readonly description: EngineDescription;
  readonly outputGrammars: OutputGrammars;
  readonly samplingDefaults: SamplingDefaults;
}

/** The usage that a stream carries, by its `stream_options`. */
export interface UsageAsked {
  readonly running: boolean;
  readonly atEnd: boolean;
}

/** The fields that both kinds of completion have in common. */
interface ReadCompletion {
  /** The requests to the engine, one per prompt. */
  readonly requests: readonly EngineRequest[];
  readonly user: string | null;
  readonly stream: boolean;
  readonly usage: UsageAsked;
}

export interface ReadChat extends ReadCompletion {
  readonly requests: readonly [EngineRequest];
  readonly thinking: boolean;
  /** The way in which the model was asked to call; null if it was offered no tools. */
  readonly callForm: CallForm | null;
}

export interface ReadPrompt {
  /** The text that `echo` puts in front of the answer; empty without it. */
  readonly text: string;
  /** Leading tokens that the text does not show: a begin token that we put there. */
  readonly hiddenTokens: number;
  /** Bytes of the one token for which the engine reports nothing. */
  readonly firstTokenBytes: readonly number[];
}

export interface ReadPrompts extends ReadCompletion {
  readonly prompts: readonly ReadPrompt[];
  readonly choicesEach: number;
  readonly echo: boolean;
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
}

/** The result of reading at each route that takes a text. */
export interface ReadByRoute {
  readonly chat: ReadChat;
  readonly completion: ReadPrompts;
  /** The whole answer, as JSON in UTF-8. */
  readonly tokenize: Uint8Array<ArrayBuffer>;
}

export type TextRoute = keyof ReadByRoute;

export interface TextRequest<Route extends TextRoute = TextRoute> {
  readonly route: Route;
  /** The request's own, which names its parts in the engine. */
  readonly id: string;
  /** JSON in UTF-8, in memory that threads share. */
  readonly body: SharedArrayBuffer;
  readonly description: EngineDescription;
}

export interface TextReader {
  /**
   * Reads a request; stops as soon as the signal is aborted.
   * @throws ApiError, also where it takes too long or too many wait.
   */
  read<Route extends TextRoute>(
    request: TextRequest<Route>,
    signal: AbortSignal,
  ): Promise<ReadByRoute[Route]>;
  /** Stops whatever is being read. */
  close(): Promise<void>;
}
