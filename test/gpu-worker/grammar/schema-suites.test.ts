/**
 * Suites of schemas: of those that are kept, every value that fits is let through in some order of
 * its properties and no other value is; random answers are what the library itself takes.
 */
import { describe, expect, test } from 'vitest';
import { matcherOf } from '../../support/schemas/grammar-walk.ts';
import { pydanticSuite } from '../../support/schemas/pydantic-schemas.ts';
import { randomAnswer } from '../../support/worker/random-answer.ts';
import { seededRandom } from '../../support/random.ts';
import { letsThrough, officialSuite, outcomeOf } from '../../support/schemas/schema-suite.ts';
import type { SuiteCase } from '../../support/schemas/schema-suite.ts';
import { typeBoxSuite } from '../../support/schemas/typebox-schemas.ts';
import { zodCases, zodSuite } from '../../support/schemas/zod-schemas.ts';
import { tiny } from '../tokenizer/fixture.ts';

const matcher = matcherOf(tiny, 4096);

/** Lists the claims about a schema's case that do not hold. */
function wrongClaims(each: SuiteCase, options: { readonly impliesTypes?: boolean } = {}): string[] {
  const outcome = outcomeOf(each.schema, options);
  if (outcome.kind === 'refused') return [];
  return each.tests.flatMap(([value, isValid]) => {
    const isLet = outcome.kind === 'kept' && letsThrough(outcome.grammar, value);
    if (isLet === isValid) return [];
    return [`${each.name}: ${JSON.stringify(value)} is ${isLet ? 'let through' : 'refused'}`];
  });
}

describe.each(['draft2020-12', 'draft7'] as const)('JSON-Schema-Test-Suite, %s', (draft) => {
  const files = [...officialSuite(draft)];
  // There formats are annotations; here they are kept, and asked below.
  const required = files.filter(([file]) => !file.startsWith('optional') && file !== 'format');

  test.each(required)('%s: no claim is wrong', (_file, cases) => {
    expect(cases.flatMap((each) => wrongClaims(each, { impliesTypes: false }))).toEqual([]);
  });

  test('most of it is kept', () => {
    const outcomes = required.flatMap(([, cases]) => cases).map(({ schema }) => outcomeOf(schema));
    const refused = outcomes.filter(({ kind }) => kind === 'refused').length;
    expect(refused).toBeLessThan(outcomes.length / (draft === 'draft7' ? 20 : 3));
  });

  const formats = files.filter(([file]) => file.startsWith('optional') && !file.endsWith('regex'));

  test.each(formats)('%s: nothing else is let through', (_file, cases) => {
    const wrong = cases.flatMap((each) => wrongClaims(each, { impliesTypes: false }));
    expect(wrong.filter((claim) => claim.endsWith('let through'))).toEqual([]);
  });
});

const libraries = { zod: zodSuite(), TypeBox: typeBoxSuite(), pydantic: pydanticSuite() };

describe.each(Object.entries(libraries))('schemas of %s', (_library, suite) => {
  test.each(suite.map((each) => [each.name, each] as const))('%s', (_name, each) => {
    expect(wrongClaims(each)).toEqual([]);
  });
});

/** TypeBox's own, for types that JSON does not have. */
const notOfJson = ['RegExp', 'Date', 'Uint8Array'];

test.each(Object.entries(libraries))('all of %s that JSON has is kept', (_library, suite) => {
  const refused = suite.filter(({ schema }) => outcomeOf(schema).kind !== 'kept');
  expect(refused.map(({ name }) => name).filter((name) => !notOfJson.includes(name))).toEqual([]);
});

// Types that change what they read are not asked: their schema is of what comes out.
const readable = Object.entries(zodCases).filter(([, { good }]) => good.length > 0);

test.each(readable)('zod takes random answers of its %s', (name, { type }) => {
  const outcome = outcomeOf(
    zodSuite().find((each) => each.name === `${name} (draft-2020-12)`)?.schema,
  );
  if (outcome.kind !== 'kept') throw new Error(`${name} is not kept`);
  const random = seededRandom(7);
  const answers = Array.from({ length: 5 }, () => {
    const draws = Array.from({ length: 40 }, () => random.integer(0, 2 ** 30));
    return randomAnswer(matcher, outcome.grammar, draws);
  });
  const faults = answers.flatMap((text) => {
    if (text === null) return [];
    const { error } = type.safeParse(JSON.parse(text));
    return error === undefined ? [] : [{ text, error }];
  });
  expect(faults).toEqual([]);
});
