/** Seeded changes to JSON values, to their text and to bytes, of the kinds that break parsers. */
import type { Random } from '../support/random.ts';

const deep = 200;

/**
 * Values that stand where others were expected. Made anew each time, because mutants change them.
 */
const oddValues: readonly (() => unknown)[] = [
  () => null,
  () => true,
  () => 0,
  () => -1,
  () => 1.5,
  () => 65_537,
  () => 1e9,
  () => 2 ** 31,
  () => 2 ** 53,
  () => 1e308,
  () => -1e308,
  () => 5e-324,
  () => '',
  () => '0',
  () => '__proto__',
  () => 'constructor',
  () => '\u0000',
  () => '\ud800',
  () => 'e\u0301\u202e\u{1f469}\u200d',
  () => '../../etc/passwd',
  () => 'a'.repeat(10_000),
  () => [],
  () => ({}),
  () => [[], {}, null],
  () => JSON.parse('{"__proto__": {"a": 1}}'),
  () => Array.from({ length: 2_000 }, () => 0),
  () => nested(deep),
];

function nested(levels: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < levels; level++) value = level % 2 ? [value] : { a: value };
  return value;
}

type Container = Record<string, unknown> | unknown[];

/** A place in a JSON value: what holds it, and under which name. */
interface Place {
  readonly holder: Record<string, unknown>;
  readonly name: string;
}

/** Every place of a value, the value itself left out; large maps are sampled. */
function placesOf(value: unknown, random: Random, places: Place[] = []): Place[] {
  if (typeof value !== 'object' || value === null) return places;
  // Indices of arrays are names like any other here.
  const holder = value as Record<string, unknown>;
  const names = Object.keys(holder as Container);
  const few = names.length <= 64 ? names : Array.from({ length: 64 }, () => random.choose(names));
  for (const name of few) {
    places.push({ holder, name });
    placesOf(holder[name], random, places);
  }
  return places;
}

/** A copy of the value with one to three changes. */
export function mutateValue(value: unknown, random: Random): unknown {
  const copy: unknown = structuredClone(value);
  for (let change = random.integer(1, 3); change > 0; change--) {
    const places = placesOf(copy, random);
    if (places.length === 0) return random.choose(oddValues)();
    const { holder, name } = random.choose(places);
    const other = random.choose(places);
    const kind = random.integer(0, 9);
    if (kind <= 4) holder[name] = random.choose(oddValues)();
    else if (kind === 5) delete holder[name];
    else if (kind === 6) holder[name] = structuredClone(other.holder[other.name]);
    else if (kind === 7) holder[`${name}${random.choose(['', '2', ' ', '\u0000'])}`] = holder[name];
    else if (kind === 8) holder[name] = [holder[name]];
    else if (typeof holder[name] === 'number')
      holder[name] = holder[name] * random.choose([-1, 10]);
    else holder[name] = String(holder[name]);
  }
  return copy;
}

/** Text of the value, one time in three no longer JSON, or JSON that says a thing twice. */
export function mutateText(value: unknown, random: Random): string {
  const text = JSON.stringify(value) ?? '';
  const at = random.integer(0, Math.max(0, text.length - 1));
  switch (random.integer(0, 20)) {
    case 0:
      return text.slice(0, at);
    case 1:
      return text.replace(/\d+/, random.choose(['NaN', '1e999', '-', '00', 'Infinity', '1e-999']));
    case 2:
      return text.replace('{', `{"model":0,"model":1,`);
    case 3:
      return text.replace(/("[^"]*":)/, '$1null,$1');
    case 4:
      return `${'['.repeat(5_000)}${text}`;
    case 5:
      return (
        text.slice(0, at) + random.choose(['\u0000', '"', '\\', '\ufeff', ']']) + text.slice(at)
      );
    case 6:
      return `${text}${text}`;
    default:
      return text;
  }
}

/** A copy with bits flipped, a piece cut out, or a piece of it twice. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random.integer(0, Math.max(0, bytes.length - 1));
  const end = Math.min(bytes.length, at + random.integer(1, 64));
  switch (random.integer(0, 4)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 2:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    default: {
      const copy = Uint8Array.from(bytes);
      for (let flips = random.integer(1, 4); flips > 0; flips--) {
        const place = random.integer(0, Math.max(0, copy.length - 1));
        if (place < copy.length) copy[place] = (copy[place] ?? 0) ^ (1 << random.integer(0, 7));
      }
      return copy;
    }
  }
}
