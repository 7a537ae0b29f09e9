/**
 * The arguments of one call as JSON, in the formats that write parameters one by one. Texts go out
 * as they come; any other value goes out once it is whole, because only then is it known whether it
 * is JSON. So what went out is the beginning of a JSON object at any time.
 */
import type { CallOutput } from './call-parser.ts';

/** Half of a character, or the sign for one whose bytes are not all there. */
const unfinished = /[\uD800-\uDBFF\uFFFD]+$/;

export class ParameterArguments {
  readonly #output: CallOutput;
  readonly #index: number;
  readonly #keys = new Set<string>();
  /** The parameter that is being written, if it is a text. */
  #open: { readonly isTold: boolean; held: string } | null = null;

  constructor(output: CallOutput, name: string) {
    this.#output = output;
    this.#index = output.start(name);
  }

  beginText(key: string): void {
    this.#open = { isTold: this.#tellKey(key), held: '' };
    if (this.#open.isTold) this.#tell('"');
  }

  /** Adds to the text that was begun. */
  text(piece: string): void {
    if (this.#open === null) return;
    const text = this.#open.held + piece;
    const kept = text.length - (unfinished.exec(text)?.[0].length ?? 0);
    this.#tellText(text.slice(0, kept));
    this.#open.held = text.slice(kept);
  }

  endText(): void {
    if (this.#open === null) return;
    this.#tellText(this.#open.held);
    if (this.#open.isTold) this.#tell('"');
    this.#open = null;
  }

  /** A whole parameter, as JSON. */
  value(key: string, json: string): void {
    if (this.#tellKey(key)) this.#tell(json);
  }

  /**
   * The call has no more parameters. Without any, what stood in their place counts, if it is an
   * object.
   */
  complete(rest: string): void {
    this.endText();
    if (this.#keys.size > 0) this.#tell('}');
    else this.#tell(typeOfJson(rest) === 'object' ? rest : '{}');
  }

  /** False for a parameter that was there before: the first one counts. */
  #tellKey(key: string): boolean {
    if (this.#keys.has(key)) return false;
    this.#tell(`${this.#keys.size === 0 ? '{' : ', '}${JSON.stringify(key)}: `);
    this.#keys.add(key);
    return true;
  }

  #tellText(text: string): void {
    if (this.#open?.isTold && text !== '') this.#tell(JSON.stringify(text).slice(1, -1));
  }

  #tell(json: string): void {
    this.#output.add(this.#index, json);
  }
}

/** `text`: as it stands; else the types that are allowed, or null where none is stated. */
export type ValueTypes = 'text' | readonly string[] | null;

/** A value as JSON: itself where that is JSON of a type that is allowed, else as a text. */
export function jsonAs(written: string, types: ValueTypes): string {
  const json = written.trim();
  const type = typeOfJson(json);
  const isText = type === null || (Array.isArray(types) && !fits(json, type, types));
  return isText ? JSON.stringify(written) : json;
}

/** JSON of a type that is not allowed stays what it is if no text is allowed either. */
function fits(json: string, type: string, types: readonly string[]): boolean {
  if (types.includes(type) || !types.includes('string')) return true;
  return type === 'number' && types.includes('integer') && Number.isInteger(Number(json));
}

function typeOfJson(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    if (value === null) return 'null';
    return Array.isArray(value) ? 'array' : typeof value;
  } catch {
    return null;
  }
}
