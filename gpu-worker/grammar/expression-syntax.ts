/**
 * The syntax of regular expressions: JavaScript's with flag u, from text to a tree. What the tree
 * says about texts is regular-expression.ts's to tell.
 */
import { at, missing } from '../at.ts';
import type { Work } from './dfa.ts';
import { codePointMax } from './nfa.ts';
import type { CodePointRange, Pattern } from './nfa.ts';
import { unicodeProperty } from './unicode-properties.ts';

/** The expression is none, or uses what is not supported; the message says which. */
export class PatternError extends Error {
  override readonly name = 'PatternError';
}

export type Expression =
  | Extract<Pattern, { kind: 'set' }>
  | { readonly kind: 'start' | 'end' }
  /** Looks at what follows without reading it. */
  | { readonly kind: 'look-ahead'; readonly isNegative: boolean; readonly inner: Expression }
  | { readonly kind: 'sequence'; readonly parts: readonly Expression[] }
  | { readonly kind: 'choice'; readonly options: readonly Expression[] }
  | {
      readonly kind: 'repeat';
      readonly part: Expression;
      readonly min: number;
      readonly max: number;
    };

const repeatMax = 1000;
const depthMax = 100;

const digits: readonly CodePointRange[] = [[0x30, 0x39]];
const word: readonly CodePointRange[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const space: readonly CodePointRange[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const lineEnds: readonly CodePointRange[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const classEscapes: Readonly<Record<string, readonly CodePointRange[]>> = {
  d: digits,
  D: complement(digits),
  w: word,
  W: complement(word),
  s: space,
  S: complement(space),
};
const controlEscapes: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13 };

/** @throws PatternError, GrammarLimitError */
export function parseExpression(source: string, work: Work): Expression {
  const strict = withoutNeedlessEscapes(source);
  try {
    // Decides what is well-formed, so that the parser below need not.
    void new RegExp(strict, 'u');
  } catch {
    throw new PatternError('it is no regular expression');
  }
  return new Parser(strict, work).expression(0);
}

/** Punctuation that other languages let be escaped, and flag u does not everywhere. */
function withoutNeedlessEscapes(source: string): string {
  return source.replaceAll(/\\([^])/g, (escape, character: string) =>
    /[-@!"#%&',:;<=>`~ _]/.test(character)
      ? `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
      : escape,
  );
}

/** Parses an expression that is known to be well-formed. */
class Parser {
  readonly #characters: readonly string[];
  readonly #work: Work;
  #at = 0;

  constructor(source: string, work: Work) {
    this.#work = work;
    this.#characters = Array.from(source);
  }

  expression(depth: number): Expression {
    if (depth > depthMax) throw new PatternError(`it is nested more than ${depthMax} deep`);
    const first = this.#sequence(depth);
    const options = [first];
    while (this.#takes('|')) options.push(this.#sequence(depth));
    return options.length === 1 ? first : { kind: 'choice', options };
  }

  #sequence(depth: number): Expression {
    const parts: Expression[] = [];
    for (
      let next = this.#peek();
      next !== '' && next !== '|' && next !== ')';
      next = this.#peek()
    ) {
      parts.push(this.#quantified(this.#atom(depth)));
    }
    return { kind: 'sequence', parts };
  }

  #quantified(part: Expression): Expression {
    const range = this.#quantifier();
    if (range === null) return part;
    // A lazy group holds something else; the same text is matched.
    this.#takes('?');
    const [min, max] = range;
    if (min > repeatMax || (max !== Infinity && max > repeatMax)) {
      throw new PatternError(`it repeats something more than ${repeatMax} times`);
    }
    return { kind: 'repeat', part, min, max };
  }

  #quantifier(): readonly [number, number] | null {
    if (this.#takes('*')) return [0, Infinity];
    if (this.#takes('+')) return [1, Infinity];
    if (this.#takes('?')) return [0, 1];
    if (!this.#takes('{')) return null;
    const [min = '', max] = this.#until('}').split(',');
    if (max === undefined) return [Number(min), Number(min)];
    return [Number(min), max === '' ? Infinity : Number(max)];
  }

  #atom(depth: number): Expression {
    const character = this.#take();
    switch (character) {
      case '^':
        return { kind: 'start' };
      case '$':
        return { kind: 'end' };
      case '.':
        return { kind: 'set', ranges: complement(lineEnds) };
      case '[':
        return { kind: 'set', ranges: this.#classRanges() };
      case '(':
        return this.#group(depth);
      case '\\':
        return { kind: 'set', ranges: this.#escape() };
      default:
        return single(character);
    }
  }

  #group(depth: number): Expression {
    let look: 'none' | 'positive' | 'negative' = 'none';
    if (this.#takes('?')) {
      const kind = this.#take();
      if (kind === '=') look = 'positive';
      else if (kind === '!') look = 'negative';
      else if (kind === '<' && this.#peek() !== '=' && this.#peek() !== '!') this.#until('>');
      else if (kind !== ':') throw new PatternError('it looks behind, or sets flags');
    }
    const inner = this.expression(depth + 1);
    this.#take();
    return look === 'none' ? inner : { kind: 'look-ahead', isNegative: look === 'negative', inner };
  }

  #classRanges(): readonly CodePointRange[] {
    const isNegated = this.#takes('^');
    const ranges: CodePointRange[] = [];
    while (!this.#takes(']')) {
      const first = this.#classMember();
      const isRange = this.#peek() === '-' && this.#characters[this.#at + 1] !== ']';
      if (!isRange) {
        ranges.push(...first);
        continue;
      }
      this.#take();
      // A well-formed range has one character on either side.
      ranges.push([at(first, 0)[0], at(this.#classMember(), 0)[1]]);
    }
    return isNegated ? complement(ranges) : ranges;
  }

  #classMember(): readonly CodePointRange[] {
    const character = this.#take();
    if (character !== '\\') return single(character).ranges;
    if (this.#takes('b')) return [[8, 8]];
    if (this.#takes('-')) return [[0x2d, 0x2d]];
    return this.#escape();
  }

  #escape(): readonly CodePointRange[] {
    const character = this.#take();
    const ranges = classEscapes[character];
    if (ranges !== undefined) return ranges;
    const control = controlEscapes[character];
    if (control !== undefined) return [[control, control]];
    if (character === '0') return [[0, 0]];
    if (character === 'c') return point(this.#take().charCodeAt(0) % 32);
    if (character === 'x') return point(Number.parseInt(this.#take() + this.#take(), 16));
    if (character === 'u') return point(this.#unicodeEscape());
    if (character === 'p' || character === 'P') {
      this.#take();
      return unicodeProperty(`\\${character}{${this.#until('}')}}`, this.#work);
    }
    if (/[bBk1-9]/.test(character)) {
      throw new PatternError(`it uses \\${character}`);
    }
    return single(character).ranges;
  }

  #unicodeEscape(): number {
    if (this.#takes('{')) return Number.parseInt(this.#until('}'), 16);
    const unit = this.#fourHexDigits();
    const isPair =
      unit >= 0xd800 &&
      unit <= 0xdbff &&
      this.#peek() === '\\' &&
      this.#characters[this.#at + 1] === 'u';
    if (!isPair) return unit;
    const before = this.#at;
    this.#at += 2;
    const second = this.#peek() === '{' ? 0 : this.#fourHexDigits();
    if (second >= 0xdc00 && second <= 0xdfff) {
      return 0x10000 + (unit - 0xd800) * 0x400 + (second - 0xdc00);
    }
    this.#at = before;
    return unit;
  }

  #fourHexDigits(): number {
    return Number.parseInt(this.#take() + this.#take() + this.#take() + this.#take(), 16);
  }

  #peek(): string {
    return this.#characters[this.#at] ?? '';
  }

  #take(): string {
    return this.#characters[this.#at++] ?? '';
  }

  #takes(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #until(end: string): string {
    let text = '';
    for (let next = this.#take(); next !== end; next = this.#take()) text += next;
    return text;
  }
}

function single(character: string): Extract<Pattern, { kind: 'set' }> {
  return { kind: 'set', ranges: point(character.codePointAt(0) ?? missing()) };
}

function point(code: number): readonly CodePointRange[] {
  return [[code, code]];
}

function complement(ranges: readonly CodePointRange[]): readonly CodePointRange[] {
  const others: CodePointRange[] = [];
  let next = 0;
  for (const [low, high] of ranges.toSorted(([a], [b]) => a - b)) {
    if (low > next) others.push([next, low - 1]);
    next = Math.max(next, high + 1);
  }
  if (next <= codePointMax) others.push([next, codePointMax]);
  return others;
}
