/**
 * Tool calls in the output of DeepSeek's models, told apart from the text around them:
 *
 *     text <calls begin> <call begin> NAME <sep> ARGUMENTS <call end> ... <calls end>
 *
 * in V3.1 and V3.2-Exp, and in V3 and R1 `function <sep> NAME` and then the arguments as a fenced
 * block of JSON. Arguments are passed on as the model wrote them: that they are JSON, and fit the
 * schema, is the model's word alone, unless a grammar holds it to them (output-grammar.ts).
 */
import type { ToolCall } from '../protocol.ts';

export const callsBegin = '<｜tool▁calls▁begin｜>';
export const callsEnd = '<｜tool▁calls▁end｜>';
export const callBegin = '<｜tool▁call▁begin｜>';
export const callEnd = '<｜tool▁call▁end｜>';
/** All of the marks have it, and hardly any other text. */
export const markCharacter = '｜';
export const separator = '<｜tool▁sep｜>';

/** The tokens that a tokenizer must have for its model to call tools in this way. */
export const toolTokens = [callsBegin, callsEnd, callBegin, callEnd, separator] as const;

export interface ToolOutput {
  /** What is not a tool call. */
  readonly text: string;
  /** Calls that became complete. */
  readonly calls: readonly ToolCall[];
}

/** One per choice; ids of calls are unique among requests, as the ids of requests are. */
export function createToolCallParsers(requestId: string, choices: number): ToolCallParser[] {
  return Array.from(
    { length: choices },
    (_, choice) => new ToolCallParser(`call-${requestId}-${choice}`),
  );
}

/** Of one choice. Text is held back while it may be the beginning of a tool call. */
export class ToolCallParser {
  #held = '';
  #isInCalls = false;
  #count = 0;
  readonly #idPrefix: string;

  /** Call i gets the id `<idPrefix>-<i>`. */
  constructor(idPrefix: string) {
    this.#idPrefix = idPrefix;
  }

  get count(): number {
    return this.#count;
  }

  push(piece: string): ToolOutput {
    this.#held += piece;
    let text = '';
    const calls: ToolCall[] = [];
    for (;;) {
      const marker = this.#isInCalls ? this.#nextInCalls() : callsBegin;
      const at = this.#held.indexOf(marker);
      if (at === -1) break;
      const before = this.#held.slice(0, at);
      this.#held = this.#held.slice(at + marker.length);
      if (marker === callEnd) {
        const call = this.#parse(before);
        if (call) calls.push(call);
        else text += before + callEnd;
      } else {
        if (!this.#isInCalls) text += before;
        this.#isInCalls = marker === callsBegin;
      }
    }
    return { text: text + this.#release(), calls };
  }

  /** What is left at the end: a call that was cut short is given as the text that it is. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** Whichever comes first: the end of a call, or of all of them. */
  #nextInCalls(): string {
    const call = this.#held.indexOf(callEnd);
    const all = this.#held.indexOf(callsEnd);
    return all !== -1 && (call === -1 || all < call) ? callsEnd : callEnd;
  }

  /** Text that can't become part of a marker any more. */
  #release(): string {
    if (this.#isInCalls) return '';
    let kept = Math.min(this.#held.length, callsBegin.length - 1);
    while (!callsBegin.startsWith(this.#held.slice(this.#held.length - kept))) kept--;
    const text = this.#held.slice(0, this.#held.length - kept);
    this.#held = this.#held.slice(this.#held.length - kept);
    return text;
  }

  /** Null if it is not a call. */
  #parse(written: string): ToolCall | null {
    const body = written.slice(written.indexOf(callBegin) + callBegin.length);
    const parts = body.split(separator);
    const [head, rest] = parts;
    if (!written.includes(callBegin) || head === undefined || rest === undefined) return null;
    const fenced = /^([^\n]+)\n```json\n([^]*?)\n?```\s*$/.exec(rest);
    const [name, json] = fenced ? [fenced[1], fenced[2]] : [head, rest];
    if (name === undefined || json === undefined || name.trim() === '') return null;
    const id = `${this.#idPrefix}-${this.#count++}`;
    return { id, type: 'function', function: { name: name.trim(), arguments: json.trim() } };
  }
}
