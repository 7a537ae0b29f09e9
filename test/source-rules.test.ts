import { expect, test } from 'vitest';
import {
  assertImports,
  banners,
  columnsMax,
  fragments,
  oldWordsIn,
  privateKeywords,
  wideCode,
  wideComments,
} from './support/source-rules.ts';

const inFile = (text: string) => ({ path: 'a.ts', text });

test.each([
  ['a comment that is too wide', wideComments, `// ${'word '.repeat(columnsMax / 4)}`],
  ['a wide line of a block', wideComments, ` * ${'word '.repeat(columnsMax / 4)}`],
  ['a wide line of a kernel', wideCode, `float a = ${'1 + '.repeat(columnsMax / 4)}1;`],
  ['an old word', oldWordsIn, '/** Runs on the matrix unit. */'],
  ['an old name', oldWordsIn, 'class Mixture {}'],
  ['a banner', banners, '  // ---- memory ----'],
  ['loose assertions', assertImports, "import assert from 'node:assert';"],
  ['a private field', privateKeywords, '  private readonly size = 1;'],
])('%s is found', (_, rule, line) => {
  expect(rule(inFile(`const a = 1;\n${line}`))).toEqual([`a.ts:2 ${line.trim()}`]);
});

test.each([
  ['/** Of one body. */', 'Of one body. */'],
  [
    '/**\n * Where a file lies, in a sentence that is\n * longer.\n */',
    'Where a file lies, in a sentence that is',
  ],
  ['// Whether it is there.\n// It may be.', 'Whether it is there.'],
])('a comment that begins as a fragment is found: %s', (comment, words) => {
  expect(fragments(inFile(`const a = 1;\n${comment}\n`))).toEqual([`a.ts:2 ${words}`]);
});

test.each([
  ['a wide line of code', wideComments, `const a = '${'word '.repeat(columnsMax / 4)}';`],
  ['an address', wideComments, `// https://a.example/${'a'.repeat(columnsMax)}`],
  ['mixture of experts', oldWordsIn, '/** Mixture of experts. */'],
  ['a comment whose second line begins with "of"', fragments, '// The bytes\n// Of the body.'],
  ['code after which a comment stands', fragments, 'f(); // What it does'],
  ['strict assertions', assertImports, "import { strict as assert } from 'node:assert';"],
  ['a private constructor', privateKeywords, '  private constructor() {}'],
])('%s is allowed', (_, rule, line) => {
  expect(rule(inFile(line))).toEqual([]);
});
