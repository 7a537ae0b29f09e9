/**
 * Collects what one choice of a chat says: its reasoning, its text and its calls of tools, event by
 * event, and the log-probabilities of their tokens.
 */
import type { CallParser, OutputEnd, ToolOutput } from '../../chat-formats/call-parser.ts';
import type { ChatChoice, ChatLogprobs, ChatTokenLogprob } from '../../protocol/responses.ts';
import { toChatLogprobs } from './wire-logprobs.ts';
import type { RunEvent } from '../run.ts';

type Output = Extract<RunEvent, { kind: 'output' }>;
type Finished = Extract<RunEvent, { kind: 'finished' }>;

export interface ChoicePiece extends ToolOutput {
  readonly reasoning: string;
}

/**
 * The reason why a choice ended, and the request's own stop string or token that matched, if any.
 */
export type ChoiceFinish = Pick<ChatChoice, 'finish_reason' | 'stop_reason'>;

export const cutShort: ChoiceFinish = { finish_reason: 'length', stop_reason: null };

/** @param parsers one per choice if the model was offered tools. */
export function createChoiceOutputs(
  choices: number,
  parsers: readonly CallParser[] | null,
): ChoiceOutput[] {
  return Array.from({ length: choices }, (_, choice) => new ChoiceOutput(parsers?.[choice]));
}

export function isEmpty({ reasoning, text, calls }: ChoicePiece): boolean {
  return reasoning === '' && text === '' && calls.length === 0;
}

export class ChoiceOutput {
  readonly #parser: CallParser | undefined;
  #channel: Output['channel'] | null = null;
  #content: ChatTokenLogprob[] = [];
  #reasoning: ChatTokenLogprob[] = [];
  #hasLogprobs = false;

  constructor(parser: CallParser | undefined) {
    this.#parser = parser;
  }

  push({ channel, text, logprobs }: Output): ChoicePiece {
    if (logprobs !== null) {
      this.#hasLogprobs = true;
      const entries = channel === 'reasoning' ? this.#reasoning : this.#content;
      entries.push(...toChatLogprobs(logprobs));
    }
    // Nothing that is held back in the reasoning goes on in the text.
    const rest =
      this.#channel === 'reasoning' && channel === 'text' ? this.#flush('complete') : null;
    this.#channel = channel;
    const piece = this.#inChannel(this.#parser?.push(text) ?? { text, calls: [] });
    if (rest === null) return piece;
    return { ...piece, reasoning: rest.reasoning, calls: [...rest.calls, ...piece.calls] };
  }

  /**
   * Gives what was held back until the end, and why it ended; a client's leaving counts as
   * `length`.
   */
  finish({ reason, stopMatch }: Finished): { rest: ChoicePiece; finish: ChoiceFinish } {
    const rest = this.#flush(endOf(reason, stopMatch));
    if (reason !== 'stop') return { rest, finish: cutShort };
    const called = this.#parser !== undefined && this.#parser.count > 0 && !this.#parser.isCut;
    const finish_reason = called ? 'tool_calls' : 'stop';
    return { rest, finish: { finish_reason, stop_reason: stopMatch } };
  }

  /** The log-probabilities since the last time; null where there are none. */
  takeLogprobs(): ChatLogprobs | null {
    if (!this.#hasLogprobs) return null;
    const [content, reasoning] = [this.#content, this.#reasoning];
    this.#content = [];
    this.#reasoning = [];
    this.#hasLogprobs = false;
    return {
      content: content.length === 0 && reasoning.length > 0 ? null : content,
      ...(reasoning.length > 0 && { reasoning_content: reasoning }),
    };
  }

  #flush(end: OutputEnd): ChoicePiece {
    return this.#inChannel(this.#parser?.flush(end) ?? { text: '', calls: [] });
  }

  #inChannel({ text, calls }: ToolOutput): ChoicePiece {
    const isReasoning = this.#channel === 'reasoning';
    return { reasoning: isReasoning ? text : '', text: isReasoning ? '' : text, calls };
  }
}

function endOf(reason: Finished['reason'], stopMatch: Finished['stopMatch']): OutputEnd {
  if (reason !== 'stop') return 'cut';
  return stopMatch === null ? 'complete' : 'stopped';
}
