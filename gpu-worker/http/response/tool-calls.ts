/**
 * Tool calls in the output of DeepSeek's models, told apart from the text around them:
 *
 *     text <calls begin> <call begin> NAME <sep> ARGUMENTS <call end> ... <calls end>
 *
 * in V3.1 and V3.2-Exp, and in V3 and R1 `function <sep> NAME` and then the arguments as a fenced
 * block of JSON. Arguments are passed on as the model writes them: that they are JSON, and fit the
 * schema, is the model's word alone, unless a grammar holds it to them (output-grammar.ts). The
 * marks never leave the worker, however the model uses them and wherever its output is cut.
 */
import type { ToolCall } from '../../protocol/messages.ts';
import type { ToolCallDelta } from '../../protocol/responses.ts';
import { CallArguments } from './call-arguments.ts';

export const callsBegin = '<｜tool▁calls▁begin｜>';
export const callsEnd = '<｜tool▁calls▁end｜>';
export const callBegin = '<｜tool▁call▁begin｜>';
export const callEnd = '<｜tool▁call▁end｜>';
/** All of the marks have it, and hardly any other text. */
export const markCharacter = '｜';
export const separator = '<｜tool▁sep｜>';

/** The tokens that a tokenizer must have for its model to call tools in this way. */
export const toolTokens = [callsBegin, callsEnd, callBegin, callEnd, separator] as const;
type Mark = (typeof toolTokens)[number];

/** The fenced form has this word in the place of the name. */
const fencedHead = 'function';

export interface ToolOutput {
  /** The text that is no tool call. */
  readonly text: string;
  /** The additions to calls, at most one entry per call: its name first, then its arguments. */
  readonly calls: readonly ToolCallDelta[];
}

/** The way in which the model was asked to call; it tells what a name that was cut was to be. */
export interface CallForm {
  readonly toolNames: readonly string[];
  /** True if names stand in the fenced form. */
  readonly isFenced: boolean;
}

/** One per choice; ids of calls are unique among requests, as the ids of requests are. */
export function createToolCallParsers(
  requestId: string,
  { choices, form }: { readonly choices: number; readonly form: CallForm },
): ToolCallParser[] {
  return Array.from(
    { length: choices },
    (_, choice) => new ToolCallParser(`call-${requestId}-${choice}`, form),
  );
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

/** Parses the output of one choice. Text is held back while it may be the beginning of a mark. */
export class ToolCallParser {
  readonly #idPrefix: string;
  readonly #form: CallForm;
  #held = '';
  /** Null outside of calls; within them, what came since the last mark, up to a separator. */
  #head: { text: string; isBegun: boolean } | null = null;
  /** The call whose arguments are being written. */
  #open: { head: string; index: number | null; arguments: CallArguments } | null = null;
  #count = 0;
  #isCut = false;
  #text = '';
  #calls: ToolCallDelta[] = [];

  /** Call i gets the id `<idPrefix>-<i>`. */
  constructor(idPrefix: string, form: CallForm) {
    this.#idPrefix = idPrefix;
    this.#form = form;
  }

  get count(): number {
    return this.#count;
  }

  /** True if the output was cut inside of a call. */
  get isCut(): boolean {
    return this.#isCut;
  }

  push(piece: string): ToolOutput {
    this.#held += piece;
    for (let found = firstMark(this.#held); found; found = firstMark(this.#held)) {
      this.#take(this.#held.slice(0, found.at));
      this.#held = this.#held.slice(found.at + found.mark.length);
      this.#takeMark(found.mark);
    }
    const kept = this.#held.length - markBegunLength(this.#held);
    this.#take(this.#held.slice(0, kept));
    this.#held = this.#held.slice(kept);
    return this.#output();
  }

  /**
   * Gives what is left at the end. `isCut` says that the model would have gone on: a call goes out
   * as far as it came, and the beginning of a mark is left out.
   */
  flush({ isCut }: { isCut: boolean }): ToolOutput {
    const markBegun = this.#held;
    this.#held = '';
    this.#isCut = isCut && (this.#open !== null || this.#head !== null);
    if (!isCut) {
      this.#take(markBegun);
      this.#endCall();
      this.#spillHead();
    } else if (this.#open) this.#cutCall(markBegun.includes(markCharacter) ? '' : markBegun);
    else if (this.#head?.isBegun) this.#cutName(this.#form.isFenced ? '' : this.#head.text);
    else if (this.#head) this.#spillHead();
    else if (!markBegun.includes(markCharacter)) this.#text += markBegun;
    this.#open = null;
    this.#head = null;
    return this.#output();
  }

  #output(): ToolOutput {
    const output = { text: this.#text, calls: this.#calls };
    this.#text = '';
    this.#calls = [];
    return output;
  }

  #take(text: string): void {
    if (this.#open) this.#tell(this.#open.arguments.push(text));
    else if (this.#head) this.#head.text += text;
    else this.#text += text;
  }

  #takeMark(mark: Mark): void {
    if (mark === separator) {
      if (this.#open || !this.#head) return;
      const head = this.#head.text.trim();
      const args = new CallArguments({ mayBeFenced: head === fencedHead });
      this.#open = { head, index: null, arguments: args };
      this.#head = null;
      this.#tell('');
      return;
    }
    this.#endCall();
    this.#spillHead();
    const isAfterText = mark === callEnd && this.#head === null;
    if (!isAfterText) {
      this.#head = mark === callsEnd ? null : { text: '', isBegun: mark === callBegin };
    }
  }

  /** Tells the name of the open call once it is known, and what was added to its arguments. */
  #tell(added: string): void {
    const call = this.#open;
    if (!call?.arguments.isDecided) return;
    const name = call.arguments.fencedName ?? call.head;
    if (call.index === null && name !== '') call.index = this.#start(name);
    if (call.index === null) this.#text += added;
    else if (added !== '') this.#add(call.index, added);
  }

  #start(name: string): number {
    const index = this.#count++;
    const id = `${this.#idPrefix}-${index}`;
    this.#calls.push({ index, id, type: 'function', function: { name, arguments: '' } });
    return index;
  }

  #add(index: number, added: string): void {
    const last = this.#calls.at(-1);
    if (last?.index !== index) this.#calls.push({ index, function: { arguments: added } });
    else {
      const written = { ...last.function, arguments: last.function.arguments + added };
      this.#calls[this.#calls.length - 1] = { ...last, function: written };
    }
  }

  #endCall(): void {
    if (!this.#open) return;
    this.#tell(this.#open.arguments.complete());
    this.#open = null;
    this.#head = { text: '', isBegun: false };
  }

  #cutCall(markBegun: string): void {
    const call = this.#open;
    if (!call) return;
    const { undecided } = call.arguments;
    // If a fence may come, this is the beginning of the name before it.
    if (!call.arguments.isDecided) this.#cutName(undecided);
    else this.#tell(call.arguments.cut(markBegun));
  }

  /** A name that was cut is told if one tool alone can be meant. */
  #cutName(begun: string): void {
    const written = begun.trim().split('\n')[0]?.trim() ?? '';
    const isWhole = begun.trimStart().includes('\n');
    const [name, ...others] = this.#form.toolNames.filter((each) =>
      isWhole ? each === written : each.startsWith(written),
    );
    if (name !== undefined && others.length === 0) this.#start(name);
  }

  /** Gives out as text what stands between the marks of calls and is no call. */
  #spillHead(): void {
    if (!this.#head) return;
    if (this.#head.text.trim() !== '') this.#text += this.#head.text;
    this.#head.text = '';
  }
}

function firstMark(text: string): { mark: Mark; at: number } | null {
  let first: { mark: Mark; at: number } | null = null;
  for (const mark of toolTokens) {
    const at = text.indexOf(mark);
    if (at !== -1 && (first === null || at < first.at)) first = { mark, at };
  }
  return first;
}

/** The length of the end that may become a mark. */
function markBegunLength(text: string): number {
  const at = text.lastIndexOf('<');
  if (at === -1) return 0;
  return toolTokens.some((mark) => mark.startsWith(text.slice(at))) ? text.length - at : 0;
}
