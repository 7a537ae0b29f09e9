/** Automata of JSON strings, quotes included. */
import { missing } from '../at.ts';
import { afterByte, combineDfa, exploreDfa, GrammarLimitError, literalsDfa } from './dfa.ts';
import type { Dfa, Work } from './dfa.ts';
import { anyCodePoint, anyText, contentDfa, Nfa, writtenAsThemselves } from './nfa.ts';
import type { Pattern } from './nfa.ts';

/** Characters that minLength and maxLength can count to. */
export const stringLengthMax = 1024;

/** Any string in any of the ways that JSON can write it; escaped surrogates come in pairs. */
export function anyStringDfa(work: Work): Dfa | null {
  const nfa = new Nfa(work);
  const end = quoted(nfa, (from) =>
    nfa.repeat(from, { min: 0, max: Infinity }, (before) => {
      const after = nfa.node();
      nfa.utf8(before, writtenAsThemselves, after);
      const escape = nfa.text(before, '\\');
      for (const character of '"\\/bfnrt') nfa.skip(nfa.text(escape, character), after);
      const unicode = nfa.text(escape, 'u');
      // Outside the surrogates: 0000 to CFFF, D000 to D7FF, E000 to FFFF.
      const firsts = digitsOf(nfa, unicode, ['0-9', 'a-c', 'A-C', 'ef', 'EF']);
      nfa.skip(hex(nfa, firsts, 3), after);
      const d = digitsOf(nfa, unicode, ['d', 'D']);
      nfa.skip(hex(nfa, digitsOf(nfa, d, ['0-7']), 2), after);
      const high = hex(nfa, digitsOf(nfa, d, ['89', 'ab', 'AB']), 2);
      const low = digitsOf(nfa, nfa.text(high, '\\u'), ['d', 'D']);
      nfa.skip(hex(nfa, digitsOf(nfa, low, ['c-f', 'C-F']), 2), after);
      return after;
    }),
  );
  return nfa.determinize(end);
}

/** Strings whose text is of the pattern, each written as JSON.stringify would. */
function patternDfa(pattern: Pattern, work: Work): Dfa | null {
  const inside = contentDfa(pattern, work);
  return inside === null ? null : quotedDfa(inside, work);
}

/** Texts of a length, in code points; null if any length will do. @throws GrammarLimitError */
export function lengthPattern({ min, max }: { min: number; max: number }): Pattern | null {
  if (min === 0 && max === Infinity) return null;
  if (min > stringLengthMax || (max !== Infinity && max > stringLengthMax)) {
    throw new GrammarLimitError(`it counts more than ${stringLengthMax} characters`);
  }
  return { kind: 'repeat', part: anyCodePoint, min, max };
}

/** Any string, written as JSON.stringify would, but these. */
export function otherStringsDfa(excluded: readonly string[], work: Work): Dfa | null {
  const any = patternDfa(anyText, work);
  const literals = literalsDfa(
    excluded.map((text) => JSON.stringify(text)),
    work,
  );
  return any === null || literals === null ? any : combineDfa([any, literals], 'and-not', work);
}

/** No content goes on with a quote where it may end: inside it stands behind a backslash. */
export function quotedDfa(inside: Dfa, work: Work): Dfa | null {
  const states = inside.accepts.length;
  const quote = inside.classes;
  const classOf = Uint8Array.from(inside.classOf);
  const quoteInside = classOf[0x22] ?? missing();
  classOf[0x22] = quote;
  // State -1 is before the first quote, `states` behind the last.
  return exploreDfa<number>(
    {
      start: -1,
      classOf,
      classes: quote + 1,
      key: String,
      step(state, byteClass) {
        if (state === states) return null;
        if (state < 0) return byteClass === quote ? 0 : null;
        const isQuote = byteClass === quote;
        const to = inside.next[state * quote + (isQuote ? quoteInside : byteClass)] ?? missing();
        if (to >= 0) return to;
        return isQuote && inside.accepts[state] === 1 ? states : null;
      },
      accepts: (state) => state === states,
    },
    work,
  );
}

/**
 * The texts of JSON strings as they stand, without quotes and escapes. Each has to be among the
 * strings in the form that JSON.stringify gives.
 */
export function unquotedDfa(strings: Dfa, work: Work): Dfa | null {
  const escapes = new Map<number, readonly number[]>();
  for (let code = 0; code <= 0x5c; code++) {
    const written = [...Buffer.from(JSON.stringify(String.fromCharCode(code)).slice(1, -1))];
    if (written.length > 1) escapes.set(code, written);
  }
  // The classes of the strings' own, and one for each character that is escaped there.
  const classOf = Uint8Array.from(strings.classOf);
  const bytesOf: (readonly number[])[] = Array.from({ length: strings.classes }, () => []);
  strings.classOf.forEach((byteClass, byte) => {
    if (!escapes.has(byte)) bytesOf[byteClass] = [byte];
  });
  for (const [byte, written] of escapes) classOf[byte] = bytesOf.push(written) - 1;
  const after = (state: number, bytes: readonly number[]): number =>
    bytes.reduce((at, byte) => (at < 0 ? at : afterByte(strings, at, byte)), state);
  const start = after(0, [0x22]);
  if (start < 0) return null;
  return exploreDfa<number>(
    {
      start,
      classOf,
      classes: bytesOf.length,
      key: String,
      step(state, byteClass) {
        const bytes = bytesOf[byteClass] ?? missing();
        const reached = bytes.length === 0 ? -1 : after(state, bytes);
        return reached < 0 ? null : reached;
      },
      accepts(state) {
        const end = after(state, [0x22]);
        return end >= 0 && strings.accepts[end] === 1;
      },
    },
    work,
  );
}

function quoted(nfa: Nfa, inside: (from: number) => number): number {
  return nfa.text(inside(nfa.text(nfa.start, '"')), '"');
}

/** One of the characters, given as ranges of ASCII such as `0-9`, or as two of them. */
function digitsOf(nfa: Nfa, from: number, ranges: readonly string[]): number {
  const to = nfa.node();
  for (const range of ranges) {
    nfa.bytes(from, [range.charCodeAt(0), range.charCodeAt(range.length - 1)], to);
  }
  return to;
}

function hex(nfa: Nfa, from: number, count: number): number {
  let node = from;
  for (let digit = 0; digit < count; digit++) node = digitsOf(nfa, node, ['0-9', 'a-f', 'A-F']);
  return node;
}
