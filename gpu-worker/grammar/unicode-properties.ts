/** The code points of a Unicode property, as this runtime's regular expressions know them. */
import type { Work } from './dfa.ts';
import type { CodePointRange } from './nfa.ts';

/**
 * A look at every code point takes some 20 ms: no more than a few are affordable in one request.
 */
const lookSteps = 250_000;
/** Code points that are looked at together: a text of all of them would take megabytes. */
const stretch = 0x4000;
/** Rows where characters are assigned one by one; those of one row have one length in UTF-16. */
const assigned: readonly CodePointRange[] = [
  [0, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x3ffff],
  [0xe0000, 0xeffff],
];
/** Planes without characters or for private use: all of a plane is alike, but for its last two. */
const uniform: readonly CodePointRange[] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16].flatMap(
  (plane): CodePointRange[] => [
    [plane * 0x10000, plane * 0x10000 + 0xfffd],
    [plane * 0x10000 + 0xfffe, plane * 0x10000 + 0xffff],
  ],
);

/**
 * @param escape `\p{...}` or `\P{...}`, well-formed.
 * @throws GrammarLimitError
 */
export function unicodeProperty(escape: string, work: Work): readonly CodePointRange[] {
  work.spend(lookSteps);
  const runs = new RegExp(`${escape}+`, 'gu');
  const found: [number, number][] = [];
  for (const [low, high] of assigned) {
    const width = low > 0xffff ? 2 : 1;
    for (let first = low; first <= high; first += stretch) {
      const length = Math.min(stretch, high - first + 1);
      const codes = Array.from({ length }, (_, index) => first + index);
      for (const { 0: run, index } of String.fromCodePoint(...codes).matchAll(runs)) {
        const start = first + index / width;
        found.push([start, start + run.length / width - 1]);
      }
    }
  }
  const isOf = new RegExp(escape, 'u');
  const alike = uniform.filter(([low]) => isOf.test(String.fromCodePoint(low)));
  return [...found, ...alike];
}
