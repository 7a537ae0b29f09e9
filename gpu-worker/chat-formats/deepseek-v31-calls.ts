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
import { deepseekV31Marks } from '../tokenizer/call-marks.ts';
import type { CallFrame } from './call-grammar.ts';
import { CallArguments } from './call-arguments.ts';
import { CallOutput, firstMark, markBegunLength } from './call-parser.ts';
import type { CallParser, OutputEnd, ToolOutput } from './call-parser.ts';

const { callsBegin, callsEnd, callBegin, callEnd, separator } = deepseekV31Marks;
const marks = Object.values(deepseekV31Marks);
type Mark = (typeof marks)[number];

/** All of the marks have it, and hardly any other text. */
export const markCharacter = '｜';

/** The fenced form has this word in the place of the name. */
const fencedHead = 'function';

/** The way in which the model was asked to call; it tells what a name that was cut was to be. */
interface CallForm {
  readonly toolNames: readonly string[];
  /** True if names stand in the fenced form. */
  readonly isFenced: boolean;
}

/** Parses the output of one choice. Text is held back while it may be the beginning of a mark. */
export class DeepseekV31Parser implements CallParser {
  readonly #output: CallOutput;
  readonly #form: CallForm;
  #held = '';
  /** Null outside of calls; within them, what came since the last mark, up to a separator. */
  #head: { text: string; isBegun: boolean } | null = null;
  /** The call whose arguments are being written. */
  #open: { head: string; index: number | null; arguments: CallArguments } | null = null;
  #isCut = false;

  /** Call i gets the id `<idPrefix>-<i>`. */
  constructor(idPrefix: string, form: CallForm) {
    this.#output = new CallOutput(idPrefix);
    this.#form = form;
  }

  get count(): number {
    return this.#output.count;
  }

  /** True if the output was cut inside of a call. */
  get isCut(): boolean {
    return this.#isCut;
  }

  push(piece: string): ToolOutput {
    this.#held += piece;
    for (let found = this.#found(); found; found = this.#found()) {
      this.#take(this.#held.slice(0, found.at));
      this.#held = this.#held.slice(found.at + found.mark.length);
      this.#takeMark(found.mark);
    }
    const kept = this.#held.length - markBegunLength(this.#held, marks);
    this.#take(this.#held.slice(0, kept));
    this.#held = this.#held.slice(kept);
    return this.#output.take();
  }

  /** The beginning of a mark is left out if the output was cut. */
  flush(end: OutputEnd): ToolOutput {
    const isCut = end !== 'complete';
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
    else if (!markBegun.includes(markCharacter)) this.#output.text(markBegun);
    this.#open = null;
    this.#head = null;
    return this.#output.take();
  }

  #found(): ReturnType<typeof firstMark<Mark>> {
    return firstMark(this.#held, marks);
  }

  #take(text: string): void {
    if (this.#open) this.#tell(this.#open.arguments.push(text));
    else if (this.#head) this.#head.text += text;
    else this.#output.text(text);
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
    if (call.index === null && name !== '') call.index = this.#output.start(name);
    if (call.index === null) this.#output.text(added);
    else if (added !== '') this.#output.add(call.index, added);
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
    if (name !== undefined && others.length === 0) this.#output.start(name);
  }

  /** Gives out as text what stands between the marks of calls and is no call. */
  #spillHead(): void {
    if (!this.#head) return;
    if (this.#head.text.trim() !== '') this.#output.text(this.#head.text);
    this.#head.text = '';
  }
}

/** The form of V3.1, and the fenced one of V3. */
export function v31Frame({ isFenced }: { readonly isFenced: boolean }): CallFrame {
  return {
    begin: callsBegin + callBegin,
    callBegin: (name) =>
      isFenced ? `${fencedHead}${separator}${name}\n\`\`\`json\n` : `${name}${separator}`,
    callEnd: `${isFenced ? '\n```' : ''}${callEnd}`,
    between: `${isFenced ? '\n' : ''}${callBegin}`,
    end: callsEnd,
    arguments: () => null,
  };
}
