/** Writes arrays into a grammar: the first items one by one, then any number of equal ones. */
import { at } from '../at.ts';
import type { ArrayRules, Containing } from './array-rules.ts';
import type { JsonText } from './json-text.ts';
import type { Place } from './schema-document.ts';
import type { WriteValue } from './write-object.ts';

interface Ends {
  readonly from: number;
  readonly to: number;
  readonly value: WriteValue;
}

export function writeArray(text: JsonText, rules: ArrayRules, ends: Ends): void {
  if (rules.count.min > rules.count.max) return;
  if (rules.distinct !== null) writeDistinct(text, rules.distinct, rules.count, ends);
  else writeItems(text, rules, ends);
}

/** The state behind some items: their number, and how many of them contain what is asked for. */
interface Step {
  readonly index: number;
  readonly contained: number;
}

function writeItems(text: JsonText, rules: ArrayRules, { from, to, value }: Ends): void {
  const { prefix, rest, count, containing } = rules;
  const { builder } = text;
  const required = containing?.min ?? 0;
  // The items from this index on are alike.
  const indexMax = count.max === Infinity ? Math.max(count.min, prefix.length) : count.max;
  const befores = new Map<string, number>();
  const waiting: Step[] = [];
  /** The node before an item. */
  const before = (step: Step): number => {
    const key = `${step.index},${step.contained}`;
    let node = befores.get(key);
    if (node === undefined) {
      befores.set(key, (node = builder.node()));
      waiting.push(step);
    }
    return node;
  };
  const afters = new Map<string, number>();
  /** The node after one. */
  const after = (step: Step): number => {
    const key = `${step.index},${step.contained}`;
    let node = afters.get(key);
    if (node === undefined) {
      afters.set(key, (node = builder.node()));
      if (step.index >= count.min && step.contained >= required) text.closing(node, ']', to);
      if (step.index < count.max) text.punctuation(node, ',', before(step));
    }
    return node;
  };
  const shared = sharedValues(text, value);
  const open = builder.node();
  text.punctuation(from, '[', open);
  if (count.min === 0 && required === 0) text.text(open, ']', to);
  if (count.max === 0) return;
  builder.skip(open, before({ index: 0, contained: 0 }));
  for (const step of waiting) {
    const places = prefix[step.index] ?? rest;
    const node = before(step);
    const index = Math.min(step.index + 1, indexMax);
    for (const { fitting, contained } of kindsOfItem(places, step.contained, containing)) {
      shared(node, after({ index, contained }), fitting);
    }
  }
}

/** An item that contains what is asked for, and one that need not or must not. */
function kindsOfItem(
  places: readonly Place[],
  contained: number,
  containing: Containing | null,
): readonly { readonly fitting: readonly Place[]; readonly contained: number }[] {
  if (containing === null) return [{ fitting: places, contained }];
  const { place, opposite, min, max } = containing;
  const isCounted = max !== Infinity;
  const others = isCounted ? [...places, opposite] : places;
  const next = isCounted ? contained + 1 : Math.min(contained + 1, min);
  return [
    { fitting: others, contained },
    ...(contained < (isCounted ? max : min)
      ? [{ fitting: [...places, place], contained: next }]
      : []),
  ];
}

/** Values are written once, and called: they stand in as many places as counts tell apart. */
function sharedValues(text: JsonText, value: WriteValue): WriteValue {
  const { builder } = text;
  const starts = new Map<string, number>();
  const ids = new Map<unknown, number>();
  return (from, to, places) => {
    const key = places
      .map(({ schema }) => {
        const id = ids.get(schema) ?? ids.size;
        ids.set(schema, id);
        return id;
      })
      .join();
    let start = starts.get(key);
    if (start === undefined) {
      starts.set(key, (start = builder.node()));
      value(start, builder.node({ isFinal: true }), places);
    }
    builder.call(from, start, to);
  };
}

/** Items of which none comes twice: each place knows which values came before. */
function writeDistinct(
  text: JsonText,
  values: readonly unknown[],
  count: ArrayRules['count'],
  { from, to }: Ends,
): void {
  const { builder } = text;
  const befores = Array.from({ length: 2 ** values.length }, () => builder.node());
  const open = builder.node();
  text.punctuation(from, '[', open);
  if (count.min === 0) text.text(open, ']', to);
  builder.skip(open, at(befores, 0));
  befores.forEach((before, taken) => {
    const items = values.filter((_, index) => (taken >> index) % 2 === 1).length;
    if (items >= count.max) return;
    values.forEach((value, index) => {
      if ((taken >> index) % 2 === 1) return;
      const after = builder.node();
      text.values(before, [value], after);
      text.punctuation(after, ',', at(befores, taken + 2 ** index));
      if (items + 1 >= count.min) text.closing(after, ']', to);
    });
  });
}
