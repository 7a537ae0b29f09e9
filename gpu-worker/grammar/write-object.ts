/**
 * Writes objects into a grammar: declared members in their order, each or none of those that are
 * not required, then others. Members are counted as far as the schema asks.
 */
import { missing } from '../at.ts';
import type { Dfa } from './dfa.ts';
import type { GrammarBuilder } from './grammar.ts';
import type { JsonText } from './json-text.ts';
import type { ObjectRules, OtherMembers } from './object-rules.ts';
import type { Place } from './schema-document.ts';
import { otherStringsDfa } from './strings.ts';

/** Writes a value that fits all the schemas between two nodes. */
export type WriteValue = (from: number, to: number, places: readonly Place[]) => void;

/** The text around and between the members of an object. */
export interface ObjectSurface {
  /** Opens an object. */
  open(from: number, to: number): void;
  /** Closes an object without members. */
  closeEmpty(from: number, to: number): void;
  separate(from: number, to: number): void;
  close(from: number, to: number): void;
  name(from: number, name: string, to: number): void;
  /** Any name of `other` but the declared ones. */
  otherName(from: number, other: OtherMembers, declared: readonly string[], to: number): void;
  value: WriteValue;
}

/** An object as JSON has it. */
export function jsonSurface(text: JsonText, value: WriteValue): ObjectSurface {
  const named = (write: (colon: number) => void, to: number): void => {
    const colon = text.builder.node();
    write(colon);
    text.punctuation(colon, ':', to);
  };
  return {
    open: (from, to) => text.punctuation(from, '{', to),
    closeEmpty: (from, to) => text.text(from, '}', to),
    separate: (from, to) => text.punctuation(from, ',', to),
    close: (from, to) => text.closing(from, '}', to),
    name: (from, name, to) => named((colon) => text.text(from, text.written(name), colon), to),
    otherName(from, { key, names }, declared, to) {
      const build = (): Dfa | null => otherStringsDfa(declared, text.compilation.work);
      const write = (colon: number): void =>
        key === null
          ? text.strings(from, `other:${JSON.stringify(declared)}`, build, colon)
          : text.strings(from, `names:${key}`, names, colon);
      named(write, to);
    },
    value,
  };
}

export function writeObject(
  builder: GrammarBuilder,
  rules: ObjectRules,
  { from, to, surface }: { from: number; to: number; surface: ObjectSurface },
): void {
  new ObjectWriter(builder, rules, surface).write(from, to);
}

class ObjectWriter {
  readonly #builder: GrammarBuilder;
  readonly #rules: ObjectRules;
  readonly #surface: ObjectSurface;
  readonly #lastRequired: number;
  /**
   * Nodes where a member of that index or a later one begins, others included, by index and count.
   */
  readonly #starts = new Map<string, number>();
  /** Values that stand in several places, by what they belong to. */
  readonly #shared = new Map<unknown, number>();

  constructor(builder: GrammarBuilder, rules: ObjectRules, surface: ObjectSurface) {
    this.#builder = builder;
    this.#rules = rules;
    this.#surface = surface;
    this.#lastRequired = rules.members.findLastIndex(({ isRequired }) => isRequired);
  }

  write(from: number, to: number): void {
    const { min, max } = this.#rules.count;
    if (min > max) return;
    const open = this.#builder.node();
    this.#surface.open(from, open);
    if (this.#lastRequired < 0 && min === 0) this.#surface.closeEmpty(open, to);
    if (max === 0) return;
    this.#builder.skip(open, this.#start(0, 0, to));
  }

  /** The count after one more member: as far as it matters, null where there may be no more. */
  #next(count: number): number | null {
    const { min, max } = this.#rules.count;
    if (max === Infinity) return Math.min(count + 1, min);
    return count < max ? count + 1 : null;
  }

  #start(first: number, none: number, to: number): number {
    const { members } = this.#rules;
    const builder = this.#builder;
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
    const node = this.#starts.get(key) ?? this.#builder.node();
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
    const node = this.#builder.node();
    this.#ends.set(key, node);
    this.#surface.separate(node, reach(index, count));
    if (index > this.#lastRequired && count >= this.#rules.count.min) {
      this.#surface.close(node, to);
    }
    return node;
  }

  #member(from: number, { name, places }: { name: string; places: readonly Place[] }, to: number) {
    const value = this.#builder.node();
    this.#surface.name(from, name, value);
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
      const end = known ?? this.#builder.node();
      this.#ends.set(key, end);
      for (const other of this.#rules.others) this.#otherMember(before, other, end);
      // Written before, with all that comes behind it.
      if (known !== undefined) return;
      this.#surface.close(end, to);
      if (isCounted && at === max) return;
      before = this.#builder.node();
      this.#surface.separate(end, before);
      if (isCounted) continue;
      for (const other of this.#rules.others) this.#otherMember(before, other, end);
      return;
    }
  }

  #otherMember(from: number, other: OtherMembers, to: number): void {
    const value = this.#builder.node();
    this.#surface.otherName(from, other, this.#rules.declared, value);
    this.#valueOf(value, other, other.places, to);
  }

  /**
   * Writes a value. If members are counted it has many places, so it is written once and called.
   */
  #valueOf(from: number, owner: unknown, places: readonly Place[], to: number): void {
    const { min, max } = this.#rules.count;
    const stands = this.#shared.get(owner);
    if (min === 0 && max === Infinity && typeof owner === 'string') {
      return this.#surface.value(from, to, places);
    }
    const builder = this.#builder;
    const start = stands ?? builder.node();
    if (stands === undefined) {
      this.#shared.set(owner, start);
      this.#surface.value(start, builder.node({ isFinal: true }), places);
    }
    builder.call(from, start, to);
  }
}
