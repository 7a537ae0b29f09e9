/**
 * The trail of a prompt: a hash of all of its text up to each of many marks, so that two prompts
 * can be compared without keeping either. It serves to tell clients where a prompt began to differ
 * from an earlier one (docs/caching.md#why-a-prompt-was-not-cached), and nothing else hangs on it.
 * The root seeds the hash, so trails of two tenants, scopes or models have no mark in common.
 */
import { canonicalJson } from './chain.ts';
import type { PromptPart } from './chain.ts';

/** Marks stand close together at the beginning of a part, and further apart after that. */
const closeUntil = 64;
const closeCharacters = 16;
const nearUntil = 2_048;
const nearCharacters = 64;
const farCharacters = 512;
/** Marks of a trail: it ends early in a prompt that would have more. */
const marksMax = 1_024;
/** Odd numbers, so that no two words have the same product. */
const multipliers = [0x9e3779b1, 0x85ebca6b] as const;
/** Characters are hashed four at a time, two in each half of the hash. */
const groupCharacters = 4;

export interface PromptTrail {
  /** The hashes at the marks, in order; each covers all that is before it. */
  readonly marks: Int32Array;
  /** The parts that the prompt has, as far as the marks reach. */
  readonly parts: readonly TrailPart[];
  /** Characters of all parts, also those after the last mark. */
  readonly characters: number;
}

export interface TrailPart {
  readonly kind: 'tools' | 'message' | 'response_format' | 'text';
  readonly characters: number;
}

/** A place in a prompt: all before `character` is the same, what differs begins before `end`. */
export interface TrailPlace {
  readonly kind: TrailPart['kind'];
  /** The part's number among those of its kind. */
  readonly index: number;
  readonly character: number;
  readonly end: number;
  /** Characters of the whole prompt before the place. */
  readonly before: number;
}

export function promptTrail(parts: readonly PromptPart[], root: Buffer): PromptTrail {
  const texts = parts.map(textsOf);
  const hash = new TextHash(root);
  const marks: number[] = [];
  const reached: TrailPart[] = [];
  for (const [index, part] of parts.entries()) {
    if (marks.length === marksMax) break;
    const [words = '', others = ''] = texts[index] ?? [];
    const characters = words.length + others.length;
    hash.begin(words, others);
    reached.push({ kind: kindOf(part), characters });
    for (let from = 0, to = -1; to !== characters && marks.length < marksMax; from = to) {
      to = Math.min(nextMark(from), characters);
      marks.push(hash.upTo(to));
    }
  }
  const characters = texts.reduce((sum, [words, others]) => sum + words.length + others.length, 0);
  return { marks: Int32Array.from(marks), parts: reached, characters };
}

/** A hash of texts one after the other, in two halves that the processor computes at once. */
class TextHash {
  #first: number;
  #second: number;
  /** The text that is hashed, two UTF-16 code units in each. */
  #units = new Int32Array(0);
  #next = 0;
  #characters = 0;

  constructor(root: Buffer) {
    this.#first = root.readInt32LE(0);
    this.#second = root.readInt32LE(4);
  }

  /** Goes on with another text, which is in two pieces. */
  begin(words: string, others: string): void {
    this.#characters = words.length + others.length;
    const groups = Math.ceil(this.#characters / groupCharacters);
    this.#units = new Int32Array(groups * 2);
    const bytes = Buffer.from(this.#units.buffer);
    bytes.write(words, 0, 'utf16le');
    bytes.write(others, words.length * 2, 'utf16le');
    this.#next = 0;
  }

  /** The hash of all texts so far, and of this one up to that character. */
  upTo(character: number): number {
    const units = this.#units;
    const end = Math.ceil(character / groupCharacters) * 2;
    let first = this.#first;
    let second = this.#second;
    for (let at = this.#next; at < end; at += 2) {
      first = Math.imul(first ^ (units[at] ?? 0), multipliers[0]);
      second = Math.imul(second ^ (units[at + 1] ?? 0), multipliers[1]);
    }
    this.#next = end;
    // The end of a text counts: what follows it is the beginning of another.
    if (character === this.#characters) first = Math.imul(first ^ character, multipliers[1]);
    // Products carry the upper bits of a word no lower; this does.
    this.#first = first ^ (first >>> 15);
    this.#second = second ^ (second >>> 15);
    return this.#first ^ ((this.#second << 7) | (this.#second >>> 25));
  }
}

/** Tells the place after so many marks that are the same; null where the trail ends there. */
export function placeAfter(trail: PromptTrail, sameMarks: number): TrailPlace | null {
  const numbers = { tools: 0, message: 0, response_format: 0, text: 0 };
  let left = sameMarks;
  let before = 0;
  for (const { kind, characters } of trail.parts) {
    const index = numbers[kind]++;
    for (let from = 0; ;) {
      const end = Math.min(nextMark(from), characters);
      if (left === 0) return { kind, index, character: from, end, before: before + from };
      left--;
      if (end === characters) break;
      from = end;
    }
    before += characters;
  }
  return null;
}

/** Counts the marks that two trails share from their beginning. */
export function sharedMarks(a: Int32Array, b: Int32Array): number {
  let same = 0;
  let different = Math.min(a.length, b.length) + 1;
  // Each mark covers all before it, so those that are the same come first.
  while (different - same > 1) {
    const middle = (same + different) >> 1;
    if (a[middle - 1] === b[middle - 1]) same = middle;
    else different = middle;
  }
  return same;
}

function nextMark(from: number): number {
  if (from < closeUntil) return from + closeCharacters;
  return from + (from < nearUntil ? nearCharacters : farCharacters);
}

/** The text of a part in two pieces: of a message its words, and then its other fields. */
function textsOf(part: PromptPart): readonly [words: string, others: string] {
  if (part.kind === 'text') return [part.value, ''];
  const { value } = part;
  if (!isMessage(value)) return [canonicalJson(value, 0), ''];
  const { role, content } = value;
  // Most messages have words and a role, and nothing else.
  if (typeof content === 'string' && typeof role === 'string' && Object.keys(value).length === 2) {
    return [content, role];
  }
  const { content: _content, ...others } = value;
  return [wordsOf(content), canonicalJson(others, 0)];
}

function wordsOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return content == null ? '' : canonicalJson(content, 0);
  return content
    .map((piece: unknown) =>
      isText(piece) && Object.keys(piece).length === 2 ? piece.text : canonicalJson(piece, 0),
    )
    .join('');
}

function isText(piece: unknown): piece is { readonly text: string } {
  return (
    typeof piece === 'object' && piece !== null && 'text' in piece && typeof piece.text === 'string'
  );
}

function isMessage(
  value: unknown,
): value is { readonly role: unknown; readonly content?: unknown } {
  return typeof value === 'object' && value !== null && 'role' in value;
}

function kindOf({ kind, value }: PromptPart): TrailPart['kind'] {
  if (kind !== 'message') return kind;
  return isMessage(value) ? 'message' : 'response_format';
}
