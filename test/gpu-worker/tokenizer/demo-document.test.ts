import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { tiny } from './fixture.ts';

const demo = new URL('../../../gpu-worker/models/tiny/demo/', import.meta.url);
const document = readFileSync(new URL('document.txt', demo), 'utf8');
// The file is ours, of this shape.
const questions = JSON.parse(readFileSync(new URL('questions.json', demo), 'utf8')) as {
  question: string;
  answer: string;
}[];

test('the demo document has about 2,600 tokens', () => {
  expect(tiny.encode(document).length).toBeGreaterThan(2_580);
  expect(tiny.encode(document).length).toBeLessThan(2_680);
});

test('the demo asks for two facts, each of which stands in the document once', () => {
  expect(questions).toHaveLength(2);
  for (const { question, answer } of questions) {
    expect(question).toMatch(/\?$/);
    expect(document.split(answer)).toHaveLength(2);
  }
});
