/**
 * Terminals against what they stand for: JavaScript's own regular expressions and strings.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  acceptsText,
  GrammarLimitError,
  isIncluded,
  withoutTextDfa,
  Work,
} from '../../../gpu-worker/grammar/dfa.ts';
import type { Dfa } from '../../../gpu-worker/grammar/dfa.ts';
import { Compilation } from '../../../gpu-worker/grammar/compilation.ts';
import { formatPatterns, shorterFormats } from '../../../gpu-worker/grammar/formats.ts';
import { contentDfa } from '../../../gpu-worker/grammar/nfa.ts';
import type { Pattern } from '../../../gpu-worker/grammar/nfa.ts';
import { PatternError } from '../../../gpu-worker/grammar/expression-syntax.ts';
import { parseRegularExpression } from '../../../gpu-worker/grammar/regular-expression.ts';
import {
  anyStringDfa,
  lengthPattern,
  otherStringsDfa,
  quotedDfa,
} from '../../../gpu-worker/grammar/strings.ts';

const unbounded = { min: 0, max: Infinity };

function stringDfa(
  { patterns, length }: { patterns: Pattern[]; length: { min: number; max: number } },
  work: Work,
): Dfa | null {
  const counted = lengthPattern(length);
  const all = counted === null ? patterns : [...patterns, counted];
  const inside = contentDfa({ kind: 'and', parts: all }, work);
  return inside === null ? null : quotedDfa(inside, work);
}

function accepts(dfa: Dfa | null, text: string): boolean {
  return dfa !== null && acceptsText(dfa, text);
}

describe('a pattern', () => {
  const atom = fc.constantFrom(
    'a',
    'b',
    '.',
    '[ab]',
    '[^a]',
    '[a-cx-z]',
    '\\d',
    '\\W',
    '\\s',
    '[\\s\\d-]',
    'é',
    '🙂',
    '[^🙂]',
    '\\n',
    '\\u0041',
    '\\u{1F642}',
    '\\ud83d\\ude42',
    '\\/',
    '"',
    '\\\\',
    '[\\]\\\\"]',
    '\\x41',
    '\\cJ',
    '\\0',
    '\\-',
  );
  const expression = fc.letrec<{ choice: string; sequence: string; quantified: string }>((tie) => ({
    choice: fc.array(tie('sequence'), { minLength: 1, maxLength: 2 }).map((all) => all.join('|')),
    sequence: fc
      .tuple(fc.boolean(), fc.array(tie('quantified'), { maxLength: 3 }), fc.boolean())
      .map(([start, parts, end]) => `${start ? '^' : ''}${parts.join('')}${end ? '$' : ''}`),
    quantified: fc
      .tuple(
        fc.oneof(
          { maxDepth: 2 },
          atom,
          tie('choice').map((inner) => `(?:${inner})`),
          fc
            .tuple(fc.constantFrom('=', '!'), tie('choice'))
            .map(([look, inner]) => `(?${look}${inner})`),
        ),
        fc.constantFrom('', '*', '+', '?', '{2}', '{1,}', '{0,2}', '*?'),
      )
      // JavaScript repeats no assertion.
      .map(([part, quantifier]) =>
        /^\(\?[=!]/.test(part) && quantifier ? `(?:${part})${quantifier}` : part + quantifier,
      ),
  })).choice;
  const text = fc.string({
    unit: fc.constantFrom(
      'a',
      'b',
      'c',
      'A',
      'é',
      '🙂',
      '\n',
      ' ',
      '1',
      '"',
      '\\',
      '-',
      '\u2028',
      '\0',
    ),
    maxLength: 6,
  });

  test('matches where JavaScript says that it does', () => {
    const seed = Date.now();
    let compared = 0;
    fc.assert(
      fc.property(expression, fc.array(text, { minLength: 5, maxLength: 5 }), (source, texts) => {
        let dfa: Dfa | null;
        try {
          const patterns = [parseRegularExpression(source, new Work())];
          dfa = stringDfa({ patterns, length: unbounded }, new Work());
        } catch (error) {
          // An anchor inside, which random expressions have and people's hardly ever.
          if (error instanceof PatternError || error instanceof GrammarLimitError) return;
          throw error;
        }
        compared++;
        for (const each of texts) {
          const expected = new RegExp(source.replaceAll('\\-', '-'), 'u').test(each);
          expect(accepts(dfa, JSON.stringify(each)), `${source} on ${JSON.stringify(each)}`).toBe(
            expected,
          );
        }
      }),
      { seed, numRuns: 400 },
    );
    expect(compared, `seed ${seed}`).toBeGreaterThan(100);
  });

  test.each(['(?<=a)b', '(?<!a)b', '(a)\\1', '\\bword', 'a?^b', '(?:a(?=b))*', '(?i:a)'])(
    '%s is refused',
    (source) => {
      expect(() => parseRegularExpression(source, new Work())).toThrow(PatternError);
    },
  );

  test.each(['^\\p{L}$', '^[^\\p{Lu}\\d]$', '^\\P{Emoji}$', '^\\p{Script=Greek}$', '^\\p{Cn}$'])(
    '%s has the characters that JavaScript says',
    (source) => {
      const dfa = stringDfa(
        { patterns: [parseRegularExpression(source, new Work())], length: unbounded },
        new Work(),
      );
      const expected = new RegExp(source, 'u');
      const codes = [
        0, 0x41, 0xd7ff, 0xe000, 0xfffe, 0x3ffff, 0x40000, 0x4fffe, 0xe0001, 0xfffff, 0x10ffff,
      ];
      for (let code = 7; code < 0x40000; code += 97)
        if (code < 0xd800 || code > 0xdfff) codes.push(code);
      for (const code of codes) {
        const character = String.fromCodePoint(code);
        expect(accepts(dfa, JSON.stringify(character)), code.toString(16)).toBe(
          expected.test(character),
        );
      }
    },
  );

  test('of more states than may be is refused', () => {
    const patterns = [parseRegularExpression('^(a|b)*a(a|b){20}$', new Work())];
    expect(() => stringDfa({ patterns, length: unbounded }, new Work())).toThrow(GrammarLimitError);
  });
});

describe('a string', () => {
  test('is any JSON string, and only that', () => {
    const dfa = anyStringDfa(new Work());
    for (const text of [
      '""',
      '"é🙂"',
      '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"',
      '"\\ud83d\\uDE42"',
      '"\u007f"',
    ]) {
      expect(accepts(dfa, text), text).toBe(true);
    }
    for (const text of [
      '',
      '"',
      '"a',
      '"\n"',
      '"\\x41"',
      '"\\u12"',
      '"\\ud83d"',
      '"\\ude42"',
      '"a"b',
    ]) {
      expect(accepts(dfa, text), text).toBe(false);
    }
  });

  test('has its length counted in code points', () => {
    const dfa = stringDfa({ patterns: [], length: { min: 2, max: 3 } }, new Work());
    const lengths = ['', 'a', '🙂', 'a"', '🙂🙂', 'é\né', '\\\\\\', '🙂🙂🙂', 'abcd', '🙂🙂🙂🙂'];
    expect(lengths.filter((text) => accepts(dfa, JSON.stringify(text)))).toEqual(
      lengths.slice(3, 8),
    );
  });

  test('that must be another is none of those, however they are written', () => {
    const dfa = otherStringsDfa(['a', 'é"', ''], new Work());
    for (const text of ['"a"', '"\\u0061"', '"é\\""', '"\\u00e9\\""', '""']) {
      expect(accepts(dfa, text), text).toBe(false);
    }
    for (const text of ['"b"', '"aa"', '"é"', '"\\""']) expect(accepts(dfa, text), text).toBe(true);
  });

  test.each([
    [
      'date',
      ['2024-02-29', '1999-12-31'],
      ['2023-02-29', '2024-04-31', '1900-02-29', '2024-13-01'],
    ],
    ['time', ['23:59:59Z', '00:00:00.5+02:30'], ['24:00:00Z', '12:00:00', '12:60:00Z']],
    ['date-time', ['2024-02-29T12:00:00Z'], ['2024-02-29', '2024-02-29 12:00:00Z']],
    ['email', ['a.b+c@example.com'], ['a@', '@b.c', 'a b@c.de', 'a..b@c.de']],
    ['hostname', ['a', 'a-b.example'], ['-a', 'a-', 'a..b', '']],
    ['ipv4', ['0.0.0.0', '255.249.10.1'], ['256.1.1.1', '01.1.1.1', '1.1.1']],
    [
      'ipv6',
      ['::', '::1', '1::', '1:2:3:4:5:6:7:8', 'fe80::1:2'],
      [':', '1:2', '1::2::3', '12345::'],
    ],
    ['uuid', ['123e4567-e89b-12d3-a456-426614174000'], ['123e4567e89b12d3a456426614174000']],
  ])('of format %s', (name, right, wrong) => {
    const patterns = [parseRegularExpression(formatPatterns.get(name) ?? '(', new Work())];
    const dfa = stringDfa({ patterns, length: unbounded }, new Work());
    for (const text of right) expect(accepts(dfa, JSON.stringify(text)), text).toBe(true);
    for (const text of wrong) expect(accepts(dfa, JSON.stringify(text)), text).toBe(false);
  });
});

test.each([...shorterFormats])(
  'shorter texts of %s are of it, and no longer than said',
  (name, all) => {
    const work = new Work();
    const whole = new Compilation().content(formatPatterns.get(name) ?? '', []);
    for (const { source, lengthMax } of all) {
      const dfa = new Compilation().content(source, []);
      if (whole === null || dfa === null) throw new Error('there are such texts');
      expect(isIncluded(dfa, whole, work)).toBe(true);
      expect(longest(dfa)).toBeLessThanOrEqual(lengthMax);
    }
  },
);

/** The length of the longest text of an automaton without circles, whose texts are ASCII. */
function longest({ next, classes }: Dfa): number {
  const known = new Map<number, number>();
  const from = (state: number): number => {
    const before = known.get(state);
    if (before !== undefined) return before;
    const onwards = [...next.subarray(state * classes, (state + 1) * classes)].filter(
      (to) => to >= 0,
    );
    const length = onwards.length === 0 ? 0 : 1 + Math.max(...onwards.map(from));
    known.set(state, length);
    return length;
  };
  return from(0);
}

test('a text without a mark has it nowhere', () => {
  const seed = Date.now();
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', 'b', '｜'), minLength: 1, maxLength: 4 }),
      fc.string({ unit: fc.constantFrom('a', 'b', '｜', 'é'), maxLength: 12 }),
      (mark, text) => {
        expect(accepts(withoutTextDfa(mark, new Work()), text)).toBe(!text.includes(mark));
      },
    ),
    { seed, numRuns: 500 },
  );
});
