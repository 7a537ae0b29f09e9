/**
 * Writes objects into a grammar: declared members in their order, each or none of those that are
 * not required, then others. Members are counted as far as the schema asks.
 */
import { missing } from '../at.ts';
import type { Dfa } from './dfa.ts';
import type { JsonText } from './json-text.ts';
import type { ObjectRules, OtherMembers } from './object-rules.ts';
import type { Place } from './schema-document.ts';
import { otherStringsDfa } from './strings.ts';

/** Writes a value that fits all the schemas between two nodes. */
export type WriteValue = (from: number, to: number, places: readonly Place[]) => void;

export function writeObject(
  text: JsonText,
  rules: ObjectRules,
  { from, to, value }: { from: number; to: number; value: WriteValue },
): void {
  new ObjectWriter(text, rules, value).write(from, to);
}

class ObjectWriter {
  readonly #text: JsonText;
  readonly #rules: ObjectRules;
  readonly #value: WriteValue;
  readonly #lastRequired: number;
  /**
   * Nodes where a member of that index or a later one begins, others included, by index and count.
   */
  readonly #starts = new Map<string, number>();
  /** Values that stand in several places, by what they belong to. */
  readonly #shared = new Map<unknown, number>();

  constructor(text: JsonText, rules: ObjectRules, value: WriteValue) {
    this.#text = text;
    this.#rules = rules;
    this.#value = value;
    this.#lastRequired = rules.members.findLastIndex(({ isRequired }) => isRequired);
  }

  write(from: number, to: number): void {
    const { min, max } = this.#rules.count;
    if (min > max) return;
    const open = this.#text.builder.node();
    this.#text.punctuation(from, '{', open);
    if (this.#lastRequired < 0 && min === 0) this.#text.text(open, '}', to);
    if (max === 0) return;
    this.#text.builder.skip(open, this.#start(0, 0, to));
  }

  /** The count after one more member: as far as it matters, null where there may be no more. */
  #next(count: number): number | null {
    const { min, max } = this.#rules.count;
    if (max === Infinity) return Math.min(count + 1, min);
    return count < max ? count + 1 : null;
  }

  #start(first: number, none: number, to: number): number {
    const { members } = this.#rules;
    const builder = this.#text.builder;
    const begin = this.#node(first, none);
    // Written from here on, one after the other: each leads to those behind it alone.
    const waiting = [{ index: first, count: none }];
    const seen = new Set<string>([`${first},${none}`]);
    const reach = (index: number, count: number): number => {
      const key = `${index},${count}`;
      if (!seen.has(key)) waiting.push({ index, count });
      seen.add(key);
      return this.#node(index, count);
    };
    for (const { index, count } of waiting) {
      const node = this.#node(index, count);
      const next = this.#next(count);
      if (index === members.length) {
        if (next !== null && this.#rules.others.length > 0) {
          this.#others(node, next, to);
        }
        continue;
      }
      const member = members[index] ?? missing();
      if (next !== null) {
        const end = builder.node();
        this.#member(node, member, end);
        builder.skip(end, this.#end(index + 1, next, { to, reach }));
      }
      if (!member.isRequired) builder.skip(node, reach(index + 1, count));
    }
    return begin;
  }

  #node(index: number, count: number): number {
    const key = `${index},${count}`;
    const node = this.#starts.get(key) ?? this.#text.builder.node();
    this.#starts.set(key, node);
    return node;
  }

  /** Nodes with at least one member before them, by index and count. */
  readonly #ends = new Map<string, number>();

  #end(
    index: number,
    count: number,
    { to, reach }: { to: number; reach: (index: number, count: number) => number },
  ): number {
    const key = `${index},${count}`;
    const known = this.#ends.get(key);
    if (known !== undefined) return known;
    const node = this.#text.builder.node();
    this.#ends.set(key, node);
    this.#text.punctuation(node, ',', reach(index, count));
    if (index > this.#lastRequired && count >= this.#rules.count.min) {
      this.#text.closing(node, '}', to);
    }
    return node;
  }

  #member(from: number, { name, places }: { name: string; places: readonly Place[] }, to: number) {
    const { builder } = this.#text;
    const colon = builder.node();
    const value = builder.node();
    this.#text.text(from, this.#text.written(name), colon);
    this.#text.punctuation(colon, ':', value);
    this.#valueOf(value, name, places, to);
  }

  /** Others may repeat a name: of all of them one counts towards the least number. */
  #others(from: number, count: number, to: number): void {
    const { min, max } = this.#rules.count;
    if (count < min) return;
    const isCounted = max !== Infinity;
    let before = from;
    for (let at = isCounted ? count : 0; ; at++) {
      const key = `others,${at}`;
      const known = this.#ends.get(key);
      const end = known ?? this.#text.builder.node();
      this.#ends.set(key, end);
      for (const other of this.#rules.others) this.#otherMember(before, other, end);
      // Written before, with all that comes behind it.
      if (known !== undefined) return;
      this.#text.closing(end, '}', to);
      if (isCounted && at === max) return;
      before = this.#text.builder.node();
      this.#text.punctuation(end, ',', before);
      if (isCounted) continue;
      for (const other of this.#rules.others) this.#otherMember(before, other, end);
      return;
    }
  }

  #otherMember(from: number, other: OtherMembers, to: number): void {
    const name = this.#text.builder.node();
    const value = this.#text.builder.node();
    this.#otherName(from, other, name);
    this.#text.punctuation(name, ':', value);
    this.#valueOf(value, other, other.places, to);
  }

  #otherName(from: number, { key, names }: OtherMembers, to: number): void {
    if (key !== null) return this.#text.strings(from, `names:${key}`, names, to);
    const { declared } = this.#rules;
    const build = (): Dfa | null => otherStringsDfa(declared, this.#text.compilation.work);
    this.#text.strings(from, `other:${JSON.stringify(declared)}`, build, to);
  }

  /**
   * Writes a value. If members are counted it has many places, so it is written once and called.
   */
  #valueOf(from: number, owner: unknown, places: readonly Place[], to: number): void {
    const { min, max } = this.#rules.count;
    const stands = this.#shared.get(owner);
    if (min === 0 && max === Infinity && typeof owner === 'string') {
      return this.#value(from, to, places);
    }
    const { builder } = this.#text;
    const start = stands ?? builder.node();
    if (stands === undefined) {
      this.#shared.set(owner, start);
      this.#value(start, builder.node({ isFinal: true }), places);
    }
    builder.call(from, start, to);
  }
}
