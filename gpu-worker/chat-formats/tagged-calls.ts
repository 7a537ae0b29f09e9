/**
 * Reads calls that are written in tags, parameter by parameter: the state machine that the formats
 * have in common. A call is one only if its first tags are followed by what a call needs; what
 * merely looks like tags, or stands where they mean nothing, is text.
 */
import { missing } from '../at.ts';
import { CallOutput, firstMark, markBegunLength } from './call-parser.ts';
import type { CallParser, OutputEnd, ToolOutput } from './call-parser.ts';
import { jsonAs, ParameterArguments } from './parameter-arguments.ts';
import type { ValueTypes } from './parameter-arguments.ts';

/**
 * The places of an output: text outside of calls, a block of calls between them, the name of a
 * call, a call between its parameters, a parameter's name, what stands before its value, its value.
 */
export type Place = 'text' | 'block' | 'name' | 'call' | 'key' | 'between' | 'value';

/** A mark of a place leads to another place. */
export interface Step {
  readonly to: Place;
  /** True if the call ends with the mark. */
  readonly ends?: true;
  /** The types of the value that follows, if the mark tells them. */
  readonly types?: ValueTypes;
}

export interface TaggedForm {
  /** The marks that count in each place; whatever else stands there is that place's text. */
  readonly steps: Readonly<Partial<Record<Place, Readonly<Record<string, Step>>>>>;
  /** Tells whether a name, or the beginning of one, can be that of a tool. */
  isName(written: string): boolean;
  /** The types of a parameter's value where no mark tells them. */
  typesOf(name: string, key: string): ValueTypes;
}

/** A name that is longer than any tool's is none. */
const nameCharactersMax = 512;

export class TaggedParser implements CallParser {
  readonly #output: CallOutput;
  readonly #form: TaggedForm;
  #place: Place = 'text';
  #held = '';
  /** The text of the place so far, where it is not told as it comes. */
  #written = '';
  /** The beginning of calls of which none is certain yet: its first mark, and what came after. */
  #undecided: { readonly mark: string; after: string } | null = null;
  /** White space behind a call, which counts only if text follows; null elsewhere. */
  #gap: string | null = null;
  #call: ParameterArguments | null = null;
  #name = '';
  #key = '';
  #types: ValueTypes = null;
  #isCut = false;

  /** Call i gets the id `<idPrefix>-<i>`. */
  constructor(idPrefix: string, form: TaggedForm) {
    this.#output = new CallOutput(idPrefix);
    this.#form = form;
  }

  get count(): number {
    return this.#output.count;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  push(piece: string): ToolOutput {
    this.#held += piece;
    while (this.#step());
    return this.#output.take();
  }

  flush(end: OutputEnd): ToolOutput {
    if (end !== 'cut') {
      while (this.#undecided !== null) {
        this.#restore('');
        while (this.#step());
      }
      this.#take(this.#held);
    }
    this.#isCut = end !== 'complete' && this.#place !== 'text';
    if (end === 'complete') this.#endCall(this.#place === 'call' ? this.#written : '');
    this.#reset();
    return this.#output.take();
  }

  #reset(): void {
    this.#place = 'text';
    this.#held = '';
    this.#written = '';
    this.#undecided = null;
    this.#gap = null;
    this.#call = null;
  }

  /** Takes what can be taken by now, up to one mark; false once nothing can. */
  #step(): boolean {
    const marks = Object.keys(this.#form.steps[this.#place] ?? {});
    const found = firstMark(this.#held, marks);
    const before = found?.at ?? this.#held.length - markBegunLength(this.#held, marks);
    const text = this.#held.slice(0, before);
    this.#held = this.#held.slice(before + (found?.mark.length ?? 0));
    this.#take(text);
    if (this.#undecided !== null && this.#isNone(found !== null)) {
      this.#restore(found?.mark ?? '');
      return true;
    }
    if (found !== null) this.#takeMark(found.mark);
    return found !== null;
  }

  #take(text: string): void {
    if (this.#place === 'value' && this.#types === 'text') this.#call?.text(text);
    else if (this.#place !== 'text') this.#written += text;
    else if (this.#gap === null) this.#output.text(text);
    else {
      this.#gap += text;
      if (this.#gap.trim() === '') return;
      this.#output.text(this.#gap);
      this.#gap = null;
    }
  }

  /** Tells whether what came since the first mark shows that no call was begun. */
  #isNone(isWhole: boolean): boolean {
    const written = this.#written;
    if (this.#place !== 'name') return written.trim() !== '';
    if (isWhole && written.trim() === '') return true;
    return written.length > nameCharactersMax || !this.#form.isName(written);
  }

  /** Gives the first mark out as text, and reads again what came after it. */
  #restore(next: string): void {
    const { mark, after } = this.#undecided ?? missing();
    this.#output.text(mark);
    this.#held = after + this.#written + next + this.#held;
    this.#undecided = null;
    this.#written = '';
    this.#place = 'text';
  }

  #takeMark(mark: string): void {
    const step = this.#form.steps[this.#place]?.[mark] ?? missing();
    const written = this.#written;
    this.#written = '';
    if (this.#place === 'text') {
      this.#undecided = { mark: (this.#gap ?? '') + mark, after: '' };
      this.#gap = null;
    } else if (this.#undecided !== null) this.#undecided.after += written + mark;
    else if (this.#place === 'block' && written.trim() !== '') this.#output.text(written);
    if (this.#place === 'name') this.#startCall(written.trim());
    if (this.#place === 'key') this.#key = written;
    if (this.#place === 'value') this.#endValue(written);
    if (step.ends) this.#endCall(this.#place === 'call' ? written : '');
    if (step.to === 'value') this.#beginValue(step.types);
    if (step.to === 'text') {
      this.#undecided = null;
      this.#gap = '';
    }
    this.#place = step.to;
  }

  #startCall(name: string): void {
    this.#undecided = null;
    this.#name = name;
    this.#call = new ParameterArguments(this.#output, name);
  }

  #beginValue(types: ValueTypes | undefined): void {
    this.#types = types === undefined ? this.#form.typesOf(this.#name, this.#key.trim()) : types;
    if (this.#types === 'text') this.#call?.beginText(this.#key);
  }

  #endValue(written: string): void {
    if (this.#types === 'text') this.#call?.endText();
    else this.#call?.value(this.#key, jsonAs(written, this.#types));
  }

  /** @param rest what stood between the last parameter and the end */
  #endCall(rest: string): void {
    const isInValue = this.#place === 'value' && this.#types !== 'text';
    if (isInValue && this.#written !== '') this.#endValue(this.#written);
    this.#call?.complete(rest.trim());
    this.#call = null;
  }
}
