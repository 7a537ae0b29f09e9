import { expect, test } from 'vitest';
import { z } from 'zod';
import { parseFields, reasonIn } from '../../../gpu-worker/protocol/parse.ts';

const schema = z.strictObject({
  name: z.string(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  items: z.array(z.strictObject({ size: z.int().max(3) })).optional(),
  part: z
    .discriminatedUnion('kind', [z.strictObject({ kind: z.literal('text'), text: z.string() })])
    .optional(),
});

function faultOf(json: object) {
  const reasons = { old: 'it was replaced', 'items[].color': 'all are grey' };
  const parsed = parseFields(schema, json, (param) => reasonIn(reasons, param));
  return parsed.isValid ? null : parsed.fault;
}

test('the first parameter at fault is named by its path, with a code of its kind', () => {
  expect(faultOf({ name: 'a', items: [{ size: 3 }] })).toBeNull();
  expect(faultOf({})).toMatchObject({ code: 'missing_required_parameter', param: 'name' });
  expect(faultOf({ name: 1 })).toMatchObject({ code: 'invalid_type', param: 'name', expected: [] });
  expect(faultOf({ name: 'a', items: [{ size: 1 }, { size: 4 }] })).toMatchObject({
    code: 'invalid_value',
    param: 'items[1].size',
  });
  expect(faultOf({ name: 'a', part: {} })).toMatchObject({
    code: 'missing_required_parameter',
    param: 'part.kind',
  });
});

test('a parameter that is known and not supported is refused with its reason', () => {
  expect(faultOf({ name: 'a', other: 1 })).toMatchObject({ code: 'unknown_parameter' });
  expect(faultOf({ name: 'a', old: 1 })).toMatchObject({
    code: 'unsupported_parameter',
    message: "'old' is not supported: it was replaced.",
  });
  expect(faultOf({ name: 'a', items: [{ size: 1, color: 'red' }] })).toMatchObject({
    code: 'unsupported_parameter',
    param: 'items[0].color',
  });
  expect(faultOf({ name: 'a', constructor: 1 })).toMatchObject({ code: 'unknown_parameter' });
  // Its reason may say where the missing one belongs; a name that nobody knows has none.
  expect(faultOf({ other: 1, old: 1 })).toMatchObject({
    code: 'unsupported_parameter',
    param: 'old',
  });
  expect(faultOf({ other: 1 })).toMatchObject({ code: 'missing_required_parameter' });
});

test('of a union the branch that fits best complains, or all that fit equally well', () => {
  expect(faultOf({ name: 'a', stop: 5 })).toMatchObject({
    code: 'invalid_type',
    expected: ['string', 'array'],
  });
  expect(faultOf({ name: 'a', stop: ['x', 5] })).toMatchObject({
    code: 'invalid_type',
    param: 'stop[1]',
    expected: [],
  });
});
