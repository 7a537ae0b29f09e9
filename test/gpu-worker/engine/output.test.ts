import fc from 'fast-check';
import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { ChoiceOutput } from '../../../gpu-worker/engine/output.ts';
import type { OutputPiece, TokenText } from '../../../gpu-worker/engine/output.ts';
import type { EngineRequest } from '../../../gpu-worker/engine/request.ts';
import { StopScanner } from '../../../gpu-worker/engine/stop-strings.ts';
import { createRequest } from '../../support/worker/engine-driver.ts';

const endToken = 900;
const thinkEnd = 901;
const stopToken = 902;

/** Token i is the i-th piece, as bytes; the detokeniser holds incomplete characters back. */
function textOver(pieces: readonly Uint8Array[]): TokenText {
  return {
    createDetokenizer: () => {
      const decoder = new TextDecoder();
      return {
        push: (token) => decoder.decode(pieces[token] ?? new Uint8Array(), { stream: true }),
        flush: () => decoder.decode(),
      };
    },
    tokenBytes: (token) => at(pieces, token),
    controlTokens: new Map(),
  };
}

function outputOver(
  pieces: readonly (string | Uint8Array)[],
  options: Partial<EngineRequest> = {},
): ChoiceOutput {
  const bytes = pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : piece));
  const request = createRequest({
    id: 'a',
    outputTokensMax: 1000,
    ignoreEnd: false,
    stopTokens: [stopToken],
    ...options,
  });
  return new ChoiceOutput(request, { tokenText: textOver(bytes), endTokens: [endToken] });
}

/** Pushes tokens until one finishes the choice. */
function run(output: ChoiceOutput, tokens: readonly number[]): OutputPiece[] {
  const pieces: OutputPiece[] = [];
  for (const token of tokens) {
    pieces.push(output.push(token));
    if (pieces.at(-1)?.finish) break;
  }
  return pieces;
}

const textOf = (pieces: readonly OutputPiece[]): string =>
  pieces.map((piece) => piece.text).join('');

/** The text before the stop string that is complete first (the longer of two at one place). */
function cutAtStop(text: string, stops: readonly string[]): { text: string; match: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const matches = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    const [longest] = matches.toSorted((a, b) => b.length - a.length);
    if (longest !== undefined) return { text: text.slice(0, end - longest.length), match: longest };
  }
  return { text, match: null };
}

test('a stop string is found at every way to cut the text into two or three pieces', () => {
  const text = 'one two STOP three';
  for (let first = 0; first <= text.length; first++) {
    for (let second = first; second <= text.length; second++) {
      const parts = [text.slice(0, first), text.slice(first, second), text.slice(second)];
      const pieces = run(outputOver(parts, { stopStrings: ['STOP'] }), [0, 1, 2]);
      expect(textOf(pieces)).toBe('one two ');
      expect(pieces.at(-1)?.finish).toEqual({ reason: 'stop', stopMatch: 'STOP' });
    }
  }
});

test('text that may begin a stop string is held back, and goes out when it does not', () => {
  const output = outputOver(['a', 'EN', 'E', 'N', 'D!'], { stopStrings: ['END'] });
  expect(output.push(0).text).toBe('a');
  expect(output.push(1).text).toBe('');
  expect(output.push(2).text).toBe('EN');
  expect(output.push(3).text).toBe('');
  expect(output.push(4)).toMatchObject({ text: '', finish: { stopMatch: 'END' } });
});

test('text held back goes out at the end, the length limit and a stop token', () => {
  for (const [last, finish] of [
    [endToken, { reason: 'stop', stopMatch: null }],
    [stopToken, { reason: 'stop', stopMatch: stopToken }],
  ] as const) {
    const pieces = run(outputOver(['ab', 'E'], { stopStrings: ['END'] }), [0, 1, last]);
    expect(textOf(pieces)).toBe('abE');
    expect(pieces.at(-1)?.finish).toEqual(finish);
  }
  const pieces = run(outputOver(['ab', 'E'], { stopStrings: ['END'], outputTokensMax: 2 }), [0, 1]);
  expect(textOf(pieces)).toBe('abE');
  expect(pieces.at(-1)?.finish).toEqual({ reason: 'length', stopMatch: null });
});

test('a stop string that is complete with the last token allowed is a stop', () => {
  const output = outputOver(['xEN', 'Dy'], { stopStrings: ['END'], outputTokensMax: 2 });
  const pieces = run(output, [0, 1]);
  expect(textOf(pieces)).toBe('x');
  expect(pieces.at(-1)?.finish).toEqual({ reason: 'stop', stopMatch: 'END' });
});

test('a character cut into tokens comes out whole, or as a replacement at the end', () => {
  const bytes = Buffer.from('é');
  const parts = [bytes.subarray(0, 1), bytes.subarray(1)];
  const whole = run(outputOver(parts), [0, 1, endToken]);
  expect(whole.map((piece) => piece.text)).toEqual(['', 'é', '']);
  expect(textOf(run(outputOver(parts), [0, endToken]))).toBe('\ufffd');
});

test('an ignored end goes on, with nothing of it in the text', () => {
  const pieces = run(outputOver(['a', 'b'], { ignoreEnd: true }), [0, endToken, 1]);
  expect(textOf(pieces)).toBe('ab');
  expect(pieces.at(-1)?.finish).toBeNull();
});

test('reasoning ends with its token; what it held back goes out before the answer', () => {
  const half = Buffer.from('é').subarray(0, 1);
  const output = outputOver(['so', half, 'yes'], { reasoningEndToken: thinkEnd });
  const pieces = run(output, [0, 1, thinkEnd, 2, endToken]);
  expect(pieces.map(({ channel, text }) => [channel, text])).toEqual([
    ['reasoning', 'so'],
    ['reasoning', ''],
    ['reasoning', '\ufffd'],
    ['text', 'yes'],
    ['text', ''],
  ]);
});

test('stop strings are looked for in the answer, not in the reasoning', () => {
  const options = { reasoningEndToken: thinkEnd, stopStrings: ['END'] };
  const pieces = run(outputOver(['x END', 'EN', 'D'], options), [0, 1, thinkEnd, 2, 1, 2]);
  expect(textOf(pieces)).toBe('x ENDEND');
  expect(pieces.at(-1)).toMatchObject({ finish: { stopMatch: 'END' } });
});

test('stop tokens and the end token count in the reasoning too', () => {
  const options = { reasoningEndToken: thinkEnd };
  for (const token of [stopToken, endToken]) {
    const pieces = run(outputOver(['a'], options), [0, token]);
    expect(pieces.at(-1)).toMatchObject({ channel: 'reasoning', finish: { reason: 'stop' } });
  }
  const atLimit = run(outputOver(['a'], { ...options, outputTokensMax: 2 }), [0, thinkEnd]);
  expect(atLimit.at(-1)).toMatchObject({ channel: 'reasoning', finish: { reason: 'length' } });
});

test('a second end of reasoning is a token like any other', () => {
  const output = outputOver(['a', 'b'], { reasoningEndToken: thinkEnd });
  const pieces = run(output, [thinkEnd, 0, thinkEnd, 1]);
  expect(pieces.map((piece) => piece.channel)).toEqual(['reasoning', 'text', 'text', 'text']);
});

test('the scanner agrees with a search of the whole text, however it is cut', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 });
  const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 6 });
  const property = fc.property(
    letters,
    fc.array(stop, { maxLength: 3 }),
    fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 60 }),
    (text, stops, cuts) => {
      const scanner = new StopScanner(stops);
      let sent = '';
      let match: string | null = null;
      let rest = text;
      for (const cut of [...cuts, text.length]) {
        const scan = scanner.push(rest.slice(0, cut));
        rest = rest.slice(cut);
        sent += scan.text;
        match = scan.match;
        if (match !== null) break;
        // No stop string may ever turn out to have begun in what was sent.
        expect(cutAtStop(text, stops).text.startsWith(sent)).toBe(true);
      }
      if (match === null) sent += scanner.flush();
      expect({ text: sent, match }).toEqual(cutAtStop(text, stops));
    },
  );
  fc.assert(property, { numRuns: 3000 });
});
