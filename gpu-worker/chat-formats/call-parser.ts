/**
 * Calls of tools, told apart from the text around them, whatever marks a model writes them with. A
 * parser takes the output of one choice in pieces, of any size, and says the same in the
 * end.
 */
import type { ToolCall } from '../protocol/messages.ts';
import type { ToolCallDelta } from '../protocol/responses.ts';

export interface ToolOutput {
  /** The text that is no tool call. */
  readonly text: string;
  /** The additions to calls, at most one entry per call: its name first, then its arguments. */
  readonly calls: readonly ToolCallDelta[];
}

/**
 * The end of an output: `complete` where the model ended it, `cut` where it would have gone on,
 * `stopped` at a stop string, so that all text before that counts.
 */
export type OutputEnd = 'complete' | 'cut' | 'stopped';

export interface CallParser {
  /** Calls so far. */
  readonly count: number;
  /** True if the output ended inside of a call that was not complete. */
  readonly isCut: boolean;
  /** Text is held back while it may be the beginning of a mark. */
  push(piece: string): ToolOutput;
  /** Gives what is left at the end; a call that was cut goes out as far as it came. */
  flush(end: OutputEnd): ToolOutput;
}

/** Collects what a parser finds, until it is told. */
export class CallOutput {
  readonly #idPrefix: string;
  #text = '';
  #calls: ToolCallDelta[] = [];
  #count = 0;

  /** Call i gets the id `<idPrefix>-<i>`. */
  constructor(idPrefix: string) {
    this.#idPrefix = idPrefix;
  }

  get count(): number {
    return this.#count;
  }

  /** Adds text that is no call. */
  text(text: string): void {
    this.#text += text;
  }

  /** Begins a call and gives its index. */
  start(name: string): number {
    const index = this.#count++;
    const id = `${this.#idPrefix}-${index}`;
    this.#calls.push({ index, id, type: 'function', function: { name, arguments: '' } });
    return index;
  }

  /** Adds to the arguments of a call. */
  add(index: number, added: string): void {
    const last = this.#calls.at(-1);
    if (last?.index !== index) this.#calls.push({ index, function: { arguments: added } });
    else {
      const written = { ...last.function, arguments: last.function.arguments + added };
      this.#calls[this.#calls.length - 1] = { ...last, function: written };
    }
  }

  /** Gives what was collected since the last time. */
  take(): ToolOutput {
    const output = { text: this.#text, calls: this.#calls };
    this.#text = '';
    this.#calls = [];
    return output;
  }
}

/** Adds up what a parser told of calls. */
export function addToCalls(calls: ToolCall[], deltas: readonly ToolCallDelta[]): void {
  for (const { index, id, function: part } of deltas) {
    const before = calls[index];
    const written = (before?.function.arguments ?? '') + part.arguments;
    calls[index] = {
      id: before?.id ?? id ?? '',
      type: 'function',
      function: { name: before?.function.name ?? part.name ?? '', arguments: written },
    };
  }
}

/** The mark that stands first in the text; of several at one place the longest. */
export function firstMark<Mark extends string>(
  text: string,
  marks: readonly Mark[],
): { readonly mark: Mark; readonly at: number } | null {
  let first: { mark: Mark; at: number } | null = null;
  for (const mark of marks) {
    const at = text.indexOf(mark);
    if (at === -1 || (first !== null && at > first.at)) continue;
    if (first === null || at < first.at || mark.length > first.mark.length) first = { mark, at };
  }
  return first;
}

/** The length of the end of the text that more of it may make one of the marks. */
export function markBegunLength(text: string, marks: readonly string[]): number {
  const longest = marks.reduce((most, mark) => Math.max(most, mark.length - 1), 0);
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(text.length - length);
    if (marks.some((mark) => mark.startsWith(end))) return length;
  }
  return 0;
}
