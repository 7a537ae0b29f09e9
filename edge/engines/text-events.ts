/**
 * Most events of a stream are like the one before but for a piece of text and the counts. They are
 * known by comparing characters, and neither parsed nor written anew: a token costs little then.
 * Whatever else differs in an event leaves it to the parser.
 */
import type { Choice, Chunk } from './chunk.ts';

/** A longer event is parsed, which costs little beside its length. */
const charactersMax = 64 * 1024;
/** Engines whose events never are alike are not tried for ever. */
const fruitlessMax = 8;
/** Stands for any text. */
export const anyText = '\u{e000}text\u{e001}';

/** A part of a piece that is text alone. */
type TextField = 'content' | 'reasoning_content' | 'text';

/** An event without its text and without the digits of its counts. */
interface Form {
  /** The event that was parsed. */
  readonly like: Chunk;
  /** The characters up to the opening quote of the text. */
  readonly before: string;
  /** The characters from its closing quote on, cut where the numbers of the counts stand. */
  readonly after: readonly string[];
  /** Characters between text and counts, and after these; null: it has no counts. */
  readonly usage: { readonly from: number; readonly to: number } | null;
}

/** Texts of events that came one after another, as JSON writes them between quotes. */
export interface TextRun {
  /** The event that all of them are, but for the text. */
  readonly like: Chunk;
  readonly texts: readonly string[];
}

export class TextEvents {
  #form: Form | null = null;
  #fruitless = 0;
  #texts: string[] = [];
  /** The newest event of the run, and where its text ends. */
  #newest = '';
  #newestEnd = 0;

  /** true if the event only adds text; it is part of the run then. */
  take(data: string): boolean {
    const form = this.#form;
    if (form === null || !data.startsWith(form.before) || data.length > charactersMax) return false;
    const from = form.before.length;
    const end = endOfText(data, from);
    if (end === from || !isAfter(data, end, form.after)) return false;
    this.#texts.push(data.slice(from, end));
    this.#newest = data;
    this.#newestEnd = end;
    this.#fruitless = 0;
    return true;
  }

  /** Ends the run; null if there is none. The counts are those of its last event, as JSON. */
  endRun(): (TextRun & { readonly usage: string | null }) | null {
    const form = this.#form;
    if (form === null || this.#texts.length === 0) return null;
    const { usage: counts, like } = form;
    const newest = this.#newest;
    const usage =
      counts === null
        ? null
        : newest.slice(this.#newestEnd + counts.from, newest.length - counts.to);
    const run = { like, texts: this.#texts, usage };
    this.#texts = [];
    return run;
  }

  /**
   * Later events may be like this one, which was parsed. There is no run.
   * @param read reads an event as this one was read.
   */
  learn(data: string, chunk: Chunk, read: (data: string) => Chunk | null): void {
    if (this.#fruitless >= fruitlessMax) return;
    const form = formOf(data, chunk, read);
    if (form === null) return;
    this.#form = form;
    this.#fruitless++;
  }
}

/** The event with another text. */
export function withText(like: Chunk, text: string): Chunk {
  return {
    ...like,
    choices: like.choices.map((piece) => {
      const { delta } = piece;
      if (delta === undefined) return { ...piece, text };
      const field = delta.content === undefined ? 'reasoning_content' : 'content';
      return { ...piece, delta: { [field]: text } };
    }),
  };
}

/** The events of a run as one. */
export function joined({ like, texts }: TextRun): Chunk {
  // Each is the inside of a JSON string, and so are all together.
  return withText(like, String(JSON.parse(`"${texts.join('')}"`)));
}

function formOf(data: string, chunk: Chunk, read: (data: string) => Chunk | null): Form | null {
  const [piece, ...others] = chunk.choices;
  const text = piece === undefined || others.length > 0 ? null : textAlone(piece);
  if (text === null || text === '') return null;
  const literal = JSON.stringify(text);
  const from = data.indexOf(literal) + 1;
  if (from === 0 || data.includes(literal, from)) return null;
  const before = data.slice(0, from);
  const after = data.slice(from + literal.length - 2);
  const probe = read(before + anyText + after);
  // The literal might have stood for something else that says the same.
  const expected = JSON.stringify(withText(chunk, anyText));
  if (probe === null || JSON.stringify(probe) !== expected) return null;
  return { like: chunk, before, ...countsIn(after) };
}

function countsIn(after: string): Pick<Form, 'after' | 'usage'> {
  const [whole = '', usage] = usagePattern.exec(after) ?? [];
  if (usage === undefined) return { after: [after], usage: null };
  const from = after.indexOf(whole) + whole.length - usage.length;
  const to = after.length - from - usage.length;
  const begin = after.slice(0, from);
  const end = after.slice(after.length - to);
  const fixed = usage.split(numberPattern);
  const parts = fixed.map((part, index) => {
    const before = index === 0 ? begin : '';
    return index === fixed.length - 1 ? before + part + end : before + part;
  });
  return { after: parts, usage: { from, to } };
}

/** Counts of two levels: an engine's that are deeper are parsed. */
const usagePattern = /"usage": ?(\{(?:[\w":, ]|\{[\w":, ]*\})*\})/;
const numberPattern = /(?<=": ?)\d{1,9}(?=[ ,}])/;

/** The text of a piece that holds nothing else; null if it does. */
function textAlone({ index: _index, delta, text, ...rest }: Choice): string | null {
  const { logprobs, finish_reason: finish, ...others } = rest;
  if (logprobs !== null || finish !== null || Object.keys(others).length > 0) return null;
  if (delta === undefined) return text ?? null;
  const [field, ...more] = Object.keys(delta);
  const isText = field === 'content' || field === 'reasoning_content';
  return isText && more.length === 0 ? (delta[field satisfies TextField] ?? null) : null;
}

/** Characters that JSON writes as they are, and the escapes that it writes of the others. */
// oxlint-disable-next-line no-control-regex -- those that JSON escapes
const textPattern = /(?:[^"\\\u0000-\u001f]|\\["\\bfnrt])*/y;

/** Finds how far the text is written as JSON.stringify would write it. */
function endOfText(data: string, from: number): number {
  textPattern.lastIndex = from;
  textPattern.test(data);
  return textPattern.lastIndex;
}

const zero = 48;
const nine = 57;
const digitsMax = 9;

/** Tells whether these parts follow, a number between each two, and nothing else. */
function isAfter(data: string, from: number, parts: readonly string[]): boolean {
  let end = from;
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index] ?? '';
    if (index > 0) {
      const begin = end;
      while (end < begin + digitsMax && isDigit(data.charCodeAt(end))) end++;
      if (end === begin || (end > begin + 1 && data.charCodeAt(begin) === zero)) return false;
    }
    if (!data.startsWith(part, end)) return false;
    end += part.length;
  }
  return end === data.length;
}

function isDigit(code: number): boolean {
  return code >= zero && code <= nine;
}
