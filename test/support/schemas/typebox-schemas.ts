/** TypeBox's types, each with values that it takes and others, as it writes them in JSON. */
import { Type } from '@sinclair/typebox';
import type { TSchema } from '@sinclair/typebox';
import type { SuiteCase } from './schema-suite.ts';

function typeBox(
  name: string,
  schema: TSchema,
  { good, bad }: { good: readonly unknown[]; bad: readonly unknown[] },
): SuiteCase {
  const tests = [
    ...good.map((value) => [value, true] as const),
    ...bad.map((value) => [value, false] as const),
  ];
  // Schemas are sent without what only the library's own symbols say.
  return { name, schema: JSON.parse(JSON.stringify(schema)), tests };
}

export function typeBoxSuite(): readonly SuiteCase[] {
  const point = Type.Object({ x: Type.Number(), y: Type.Number() });
  const named = Type.Object({ name: Type.String() });
  return [
    typeBox('String', Type.String({ minLength: 2 }), { good: ['ab'], bad: ['a', 1] }),
    typeBox('Number', Type.Number({ minimum: 1 }), { good: [1.5], bad: [0.5] }),
    typeBox('Integer', Type.Integer({ multipleOf: 5 }), { good: [10], bad: [11, 0.5] }),
    typeBox('Boolean', Type.Boolean(), { good: [true], bad: ['true'] }),
    typeBox('Null', Type.Null(), { good: [null], bad: [0] }),
    typeBox('Any', Type.Any(), { good: [1, { a: 1 }], bad: [] }),
    typeBox('Unknown', Type.Unknown(), { good: [1], bad: [] }),
    typeBox('Literal', Type.Literal('a'), { good: ['a'], bad: ['b'] }),
    typeBox('Array', Type.Array(Type.Number(), { maxItems: 1 }), {
      good: [[], [1]],
      bad: [[1, 2]],
    }),
    typeBox('Array of distinct', Type.Array(Type.Enum({ a: 'a', b: 'b' }), { uniqueItems: true }), {
      good: [['b', 'a'], []],
      bad: [['a', 'a']],
    }),
    typeBox('Array that contains', Type.Array(Type.Number(), { contains: Type.Literal(1) }), {
      good: [[1], [2, 1, 3]],
      bad: [[], [2]],
    }),
    typeBox('Object', point, { good: [{ x: 1, y: 2 }], bad: [{ x: 1 }] }),
    typeBox('Object, closed', Type.Object({}, { additionalProperties: false }), {
      good: [{}],
      bad: [{ a: 1 }],
    }),
    typeBox(
      'Object, counted',
      Type.Object({ a: Type.Optional(Type.Null()) }, { minProperties: 1 }),
      {
        good: [{ a: null }, { b: 1 }],
        bad: [{}],
      },
    ),
    typeBox('Partial', Type.Partial(point), { good: [{}, { y: 1 }], bad: [{ x: 'a' }] }),
    typeBox('Composite', Type.Composite([point, named]), {
      good: [{ x: 1, y: 2, name: 'a' }],
      bad: [{ x: 1, y: 2 }],
    }),
    typeBox('Intersect', Type.Intersect([point, named]), {
      good: [{ x: 1, y: 2, name: 'a' }],
      bad: [{ name: 'a' }],
    }),
    typeBox('Intersect, closed', Type.Intersect([point, named], { unevaluatedProperties: false }), {
      good: [{ x: 1, y: 2, name: 'a' }],
      bad: [{ x: 1, y: 2, name: 'a', z: 3 }],
    }),
    typeBox('Union', Type.Union([Type.String(), point]), { good: ['a', { x: 1, y: 2 }], bad: [1] }),
    typeBox('Enum', Type.Enum({ A: 'a', B: 1 }), { good: ['a', 1], bad: ['A'] }),
    typeBox('Tuple', Type.Tuple([Type.String(), Type.Number()]), {
      good: [['a', 1]],
      bad: [['a'], ['a', 1, 2]],
    }),
    typeBox('Tuple, empty', Type.Tuple([]), { good: [[]], bad: [[1]] }),
    typeBox('Record', Type.Record(Type.String(), Type.Number()), {
      good: [{}, { a: 1 }],
      bad: [{ a: 'b' }],
    }),
    typeBox(
      'Record of literals',
      Type.Record(Type.Union([Type.Literal('a'), Type.Literal('b')]), Type.Null()),
      {
        good: [{ a: null, b: null }],
        bad: [{ a: null }],
      },
    ),
    typeBox(
      'Record of numbers',
      Type.Record(Type.Number(), Type.String(), { additionalProperties: false }),
      {
        good: [{ 1: 'a' }],
        bad: [{ x: 'a' }],
      },
    ),
    typeBox('TemplateLiteral', Type.TemplateLiteral('id-${number}'), {
      good: ['id-1'],
      bad: ['id-'],
    }),
    typeBox(
      'Recursive',
      Type.Recursive((self) => Type.Object({ next: Type.Union([self, Type.Null()]) })),
      {
        good: [{ next: { next: null } }],
        bad: [{}],
      },
    ),
    typeBox('Not', Type.Not(Type.String()), { good: [1, null], bad: ['a'] }),
    typeBox('Never', Type.Object({ a: Type.Optional(Type.Never()) }), {
      good: [{}],
      bad: [{ a: 1 }],
    }),
    typeBox('RegExp', Type.RegExp(/^a.c$/), { good: [], bad: [] }),
    typeBox('Date', Type.Date(), { good: [], bad: [] }),
    typeBox('Uint8Array', Type.Uint8Array(), { good: [], bad: [] }),
    typeBox('Module', Type.Module({ P: point, L: Type.Array(Type.Ref('P')) }).Import('L'), {
      good: [[{ x: 1, y: 2 }]],
      bad: [[{}]],
    }),
  ];
}
