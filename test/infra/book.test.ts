/** The book of the demo: what is cut of it, and what `sift demo book` says. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import {
  bookPrompt,
  bookQuestion,
  plantedFact,
  tokensReadIn,
} from '../../infra/book/book-prompt.ts';
import { tiny } from '../gpu-worker/tokenizer/fixture.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const countTokens = (prompt: string) => Promise.resolve(tiny.encode(prompt).length);

test.each([4_000, 16_000, 138_000])('%i tokens of the book hold the fact once', async (wanted) => {
  const { prompt, tokens } = await bookPrompt(wanted, countTokens);
  expect(tokens).toBe(tiny.encode(prompt).length);
  expect(tokens).toBeGreaterThanOrEqual(wanted);
  expect(tokens).toBeLessThan(wanted * 1.02);
  expect(prompt.startsWith('CHAPTER 1. Loomings.')).toBe(true);
  expect(prompt.split(plantedFact)).toHaveLength(2);
  expect(prompt.endsWith(`.\n\n${bookQuestion}`)).toBe(true);
  const before = prompt.indexOf(plantedFact) / prompt.length;
  expect(before).toBeGreaterThan(0.25);
  expect(before).toBeLessThan(0.6);
});

test('more tokens than the book has are all that it has', async () => {
  const all = await bookPrompt(10_000_000, countTokens);
  expect(all.tokens).toBeGreaterThan(300_000);
  expect(all.prompt).toContain('The drama');
});

test('the tokens that are read in some time follow from those that were', () => {
  const seen = { tokens: 2_646, seconds: 1.2 };
  expect(tokensReadIn(1.2, seen)).toBeGreaterThan(2_640);
  expect(tokensReadIn(1.2, seen)).toBeLessThan(2_650);
  // Ten times the time reads less than ten times as much, since each token looks at all before it.
  expect(tokensReadIn(12, seen)).toBeGreaterThan(10_000);
  expect(tokensReadIn(12, seen)).toBeLessThan(26_000);
  expect(tokensReadIn(30, { ...seen, seconds: 0.01 })).toBeGreaterThan(138_000);
});

test('sift demo book asks twice, and the second answer finds the book cached', async () => {
  const flags = ['infra/sift.ts', 'demo', 'book', '--tokens', '1500'];
  const { stdout } = await promisify(execFile)(process.execPath, flags, { cwd: root });
  const answers = [
    ...stdout.matchAll(
      /A {2}(.*)\n +(\d+) prompt tokens \((\d+) cached\), (\d+) output tokens, \$([\d.]+)/g,
    ),
  ].map(([, text, ...numbers]) => ({ text, numbers: numbers.map(Number) }));
  expect(answers.map(({ text }) => text)).toEqual([plantedFact, plantedFact]);
  const [first, second] = answers.map(({ numbers }) => numbers);
  const [tokens = 0, cached = 0] = second ?? [];
  expect(first?.slice(0, 2)).toEqual([tokens, 0]);
  expect(cached).toBe(Math.floor((tokens - 1) / 64) * 64);
  expect(second?.[3]).toBeLessThan((first?.[3] ?? 0) / 5);
  expect(stdout).toMatch(/read 1,\d{3} of 1,\d{3} tokens/);
  expect(stdout).toMatch(/The second answer took [\d.]+% of the time, at [\d.]+% of the price\./);
});

test('a number of tokens that is none is refused', async () => {
  const flags = ['infra/sift.ts', 'demo', 'book', '--tokens', 'many'];
  const failed = promisify(execFile)(process.execPath, flags, { cwd: root });
  await expect(failed).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining('--tokens is many'),
  });
});
