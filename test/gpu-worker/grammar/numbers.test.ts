/** The automata of JSON numbers, against the numbers that they stand for. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { acceptsText, Work } from '../../../gpu-worker/grammar/dfa.ts';
import type { Dfa } from '../../../gpu-worker/grammar/dfa.ts';
import {
  integerDfa,
  isMultiple,
  multipleOf,
  numberDfa,
} from '../../../gpu-worker/grammar/numbers.ts';
import type { Bound, NumberRange } from '../../../gpu-worker/grammar/numbers.ts';

function accepts(dfa: Dfa | null, text: string): boolean {
  return dfa !== null && acceptsText(dfa, text);
}

describe('a number', () => {
  const bound = (values: fc.Arbitrary<number>): fc.Arbitrary<Bound | null> =>
    fc.option(fc.record({ value: values, exclusive: fc.boolean() }), { freq: 4 });
  const isIn = (value: number, { min, max, multipleOf: divisor }: NumberRange): boolean =>
    (min === null || value > min.value || (value === min.value && !min.exclusive)) &&
    (max === null || value < max.value || (value === max.value && !max.exclusive)) &&
    (divisor === null || isMultiple(value, divisor));

  test('is an integer of the range, each of them', () => {
    const near = fc.oneof(
      fc.integer({ min: -1200, max: 1200 }),
      fc.constantFrom(-0.5, 0.5, 99.5, -1e15),
    );
    const seed = Date.now();
    fc.assert(
      fc.property(
        bound(near),
        bound(near),
        fc.option(fc.record({ digits: fc.integer({ min: 1, max: 12 }), decimals: fc.nat(2) })),
        (min, max, divisor) => {
          const range = { min, max, multipleOf: divisor };
          const dfa = integerDfa(range, new Work());
          for (let value = -1300; value <= 1300; value += 13 + (value % 3)) {
            expect(accepts(dfa, String(value)), String(value)).toBe(isIn(value, range));
          }
        },
      ),
      { seed, numRuns: 150 },
    );
    const dfa = integerDfa({ min: null, max: null, multipleOf: null }, new Work());
    for (const text of ['-0', '01', '1.0', '1e3', '', '-', '+1', '1234567890123456789012']) {
      expect(accepts(dfa, text), text).toBe(false);
    }
  });

  test('is an integer that a double holds exactly, unless a bound lies beyond them', () => {
    const at = (value: number): Bound => ({ value, exclusive: false });
    const [safe, next] = ['9007199254740991', '9007199254740992'];
    const open = { min: null, max: null, multipleOf: null };
    for (const range of [open, { ...open, min: at(0) }, { ...open, min: at(-5) }]) {
      const dfa = integerDfa(range, new Work());
      expect([safe, next].map((text) => accepts(dfa, text))).toEqual([true, false]);
    }
    const below = integerDfa({ ...open, max: at(7) }, new Work());
    expect([safe, next].map((text) => accepts(below, `-${text}`))).toEqual([true, false]);
    const wide = integerDfa({ ...open, max: at(2 ** 63) }, new Work());
    expect(accepts(wide, '1234567890123456789')).toBe(true);
    const far = integerDfa({ ...open, min: at(2 ** 60) }, new Work());
    expect([safe, '1234567890123456789'].map((text) => accepts(far, text))).toEqual([false, true]);
  });

  test('is a decimal of the range, each that is written with few digits', () => {
    const values = fc.oneof(
      fc.integer({ min: -3000, max: 3000 }).map((each) => each / 1000),
      fc.constantFrom(0, -0, 1e-7, 0.1 + 0.2, 123456789.5),
    );
    const decimals = fc.oneof(
      fc.tuple(fc.integer({ min: -40_000, max: 40_000 }), fc.integer({ min: 0, max: 4 })),
    );
    const seed = Date.now();
    fc.assert(
      fc.property(
        bound(values),
        bound(values),
        fc.option(fc.record({ digits: fc.integer({ min: 1, max: 60 }), decimals: fc.nat(4) })),
        fc.array(decimals, { minLength: 20, maxLength: 20 }),
        (min, max, divisor, all) => {
          const range = { min, max, multipleOf: divisor };
          const dfa = numberDfa(range, new Work());
          const edges = [min, max].flatMap((each) =>
            each === null ? [] : [each.value, each.value + 0.001],
          );
          const texts = [
            ...all.map(([digits, point]) => (digits / 10 ** point).toFixed(point)),
            ...edges.map(String),
          ];
          for (const text of texts.filter((each) => /^-?\d+(\.\d{1,5})?$/.test(each))) {
            // A multiple has no more decimals than what it is a multiple of.
            const few = (text.split('.')[1] ?? '').length <= (divisor?.decimals ?? Infinity);
            if (!few && isIn(Number(text), range)) continue;
            expect(accepts(dfa, text), `${text} in ${JSON.stringify(range)}`).toBe(
              isIn(Number(text), range),
            );
          }
        },
      ),
      { seed, numRuns: 200 },
    );
  });

  test('is a multiple as decimals are, and is read from JSON Schema in any spelling', () => {
    expect([0.01, 1e-8, 12.5, 5, 1e3].map(multipleOf)).toEqual([
      { digits: 1, decimals: 2 },
      { digits: 1, decimals: 8 },
      { digits: 125, decimals: 1 },
      { digits: 5, decimals: 0 },
      { digits: 1000, decimals: 0 },
    ]);
    expect([0, -1, 1e-20, 12345, 1e9, 0.123456].map(multipleOf)).toEqual([
      null,
      null,
      null,
      null,
      null,
      null,
    ]);
    expect(isMultiple(0.07, { digits: 1, decimals: 2 })).toBe(true);
    expect(isMultiple(-1e21, { digits: 5, decimals: 0 })).toBe(true);
    expect(isMultiple(0.075, { digits: 1, decimals: 2 })).toBe(false);
  });

  test('that is no integer has a fraction', () => {
    const range = { min: null, max: { value: 2, exclusive: false }, multipleOf: null };
    const dfa = numberDfa({ ...range, isFraction: true }, new Work());
    for (const text of ['0.5', '-1.25', '1.10']) expect(accepts(dfa, text), text).toBe(true);
    for (const text of ['1', '0', '1.0', '-3.00', '2.5'])
      expect(accepts(dfa, text), text).toBe(false);
  });

  test('is bounded by what a float32 or a float64 holds without being refused', () => {
    for (const most of [3.4028234663852886e38, Number.MAX_VALUE]) {
      const bounds = {
        min: { value: -most, exclusive: false },
        max: { value: most, exclusive: false },
      };
      const dfa = numberDfa({ ...bounds, multipleOf: null }, new Work());
      for (const text of ['0', '-12.5', '123456789012345']) expect(accepts(dfa, text)).toBe(true);
    }
  });

  test('without bounds may have an exponent, and is finite', () => {
    const dfa = numberDfa({ min: null, max: null, multipleOf: null }, new Work());
    for (const text of ['0', '-0.5', '1e-7', '12.5E+10', '999999999999999999999.9e279', '1e-324']) {
      expect(accepts(dfa, text), text).toBe(true);
      expect(Number.isFinite(JSON.parse(text))).toBe(true);
    }
    for (const text of ['.5', '1.', '1e', '1e280', '1e-1000', '00', 'NaN', '-']) {
      expect(accepts(dfa, text), text).toBe(false);
    }
  });

  test('of a range without numbers has no automaton', () => {
    const at = (value: number, exclusive = false): Bound => ({ value, exclusive });
    expect(integerDfa({ min: at(0.2), max: at(0.8), multipleOf: null }, new Work())).toBe(null);
    expect(
      integerDfa({ min: at(8), max: at(9), multipleOf: { digits: 7, decimals: 0 } }, new Work()),
    ).toBe(null);
    expect(numberDfa({ min: at(1), max: at(1, true), multipleOf: null }, new Work())).toBe(null);
    const narrow = numberDfa(
      { min: at(1.23456789), max: at(1.2345679), multipleOf: null },
      new Work(),
    );
    expect(accepts(narrow, '1.234567895')).toBe(true);
  });
});
