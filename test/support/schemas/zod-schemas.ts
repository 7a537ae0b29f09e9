/**
 * All of zod's types, each with values that it takes and others, and the schemas that zod writes of
 * them.
 */
import { z } from 'zod';
import type { SuiteCase } from './schema-suite.ts';

interface ZodCase {
  readonly type: z.ZodType;
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

const uuid = '018f3a1e-7b1c-7cc0-9a54-0d3f1f2b3c4d';
const jwt = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl';
const tree = z.object({
  name: z.string(),
  get children() {
    return z.array(tree);
  },
});

/** Cases by the name of the type. */
export const zodCases: Readonly<Record<string, ZodCase>> = {
  string: { type: z.string(), good: ['', 'a "b" \n é 🙂'], bad: [1, null] },
  number: { type: z.number(), good: [0, -1.5, 1e-7], bad: ['1', null] },
  int: { type: z.int(), good: [0, -5, Number.MAX_SAFE_INTEGER], bad: [0.5, 2 ** 60] },
  int32: { type: z.int32(), good: [-2147483648, 2147483647], bad: [2147483648] },
  uint32: { type: z.uint32(), good: [0, 4294967295], bad: [-1] },
  float32: { type: z.float32(), good: [1.5, -2], bad: ['1'] },
  float64: { type: z.float64(), good: [1.5, -2], bad: ['1'] },
  boolean: { type: z.boolean(), good: [true, false], bad: ['true', 0] },
  null: { type: z.null(), good: [null], bad: [false] },
  any: { type: z.any(), good: [1, { a: [] }], bad: [] },
  unknown: { type: z.unknown(), good: [1, 'a', [null]], bad: [] },
  literal: { type: z.literal('a'), good: ['a'], bad: ['b', 1] },
  literals: {
    type: z.literal(['a', 1, null, true]),
    good: ['a', 1, null, true],
    bad: ['1', false],
  },
  enum: { type: z.enum(['a', 'b']), good: ['a', 'b'], bad: ['c'] },
  object: { type: z.object({ a: z.string() }), good: [{ a: 'x' }], bad: [{}, { a: 1 }] },
  optional: {
    type: z.object({ a: z.string().optional(), b: z.string().nullish() }),
    good: [{}, { a: 'x', b: null }],
    bad: [{ a: null }],
  },
  strictObject: {
    type: z.strictObject({ a: z.number() }),
    good: [{ a: 1 }],
    bad: [{ a: 1, b: 2 }],
  },
  looseObject: { type: z.looseObject({ a: z.number() }), good: [{ a: 1, b: [] }], bad: [{ b: 1 }] },
  catchall: {
    type: z.object({ a: z.string() }).catchall(z.number()),
    good: [{ a: 'x', b: 1 }],
    bad: [{ a: 'x', b: 'y' }],
  },
  record: { type: z.record(z.string(), z.number()), good: [{}, { x: 1, y: 2 }], bad: [{ x: 'a' }] },
  recordOfEnum: {
    type: z.record(z.enum(['a', 'b']), z.number()),
    good: [{ a: 1, b: 2 }],
    bad: [{ a: 1 }, { a: 1, b: 2, c: 3 }],
  },
  recordOfPattern: {
    type: z.record(z.string().regex(/^k\d$/), z.null()),
    good: [{}, { k1: null }],
    bad: [{ x: null }],
  },
  partialRecord: {
    type: z.partialRecord(z.enum(['a', 'b']), z.number()),
    good: [{}, { b: 2 }],
    bad: [{ c: 3 }],
  },
  looseRecord: {
    type: z.looseRecord(z.string().regex(/^x/), z.number()),
    good: [{ x1: 1, other: 'a' }],
    bad: [{ x1: 'a' }],
  },
  tuple: { type: z.tuple([z.string(), z.number()]), good: [['a', 1]], bad: [['a'], ['a', 1, 2]] },
  tupleWithRest: {
    type: z.tuple([z.string()], z.number()),
    good: [['a'], ['a', 1, 2]],
    bad: [[], ['a', 'b']],
  },
  tupleWithOptional: {
    type: z.tuple([z.string(), z.number().optional()]),
    good: [['a'], ['a', 1]],
    bad: [[], ['a', 1, 2]],
  },
  array: { type: z.array(z.int()).min(1).max(3), good: [[1], [1, 2, 3]], bad: [[], [1, 2, 3, 4]] },
  nonempty: { type: z.array(z.string()).nonempty(), good: [['a']], bad: [[]] },
  union: { type: z.union([z.string(), z.number()]), good: ['a', 1], bad: [null] },
  discriminatedUnion: {
    type: z.discriminatedUnion('k', [
      z.object({ k: z.literal('a'), n: z.number() }),
      z.object({ k: z.literal('b') }),
    ]),
    good: [{ k: 'a', n: 1 }, { k: 'b' }],
    bad: [{ k: 'a' }, { k: 'c' }],
  },
  xor: { type: z.xor([z.string(), z.number()]), good: ['a', 1], bad: [true] },
  intersection: {
    type: z.intersection(z.object({ a: z.string() }), z.object({ b: z.number() })),
    good: [{ a: 'x', b: 1 }],
    bad: [{ a: 'x' }, { b: 1 }],
  },
  intersectionOfLoose: {
    type: z.intersection(z.looseObject({ a: z.string() }), z.looseObject({ b: z.number() })),
    good: [{ a: 'x', b: 1, c: true }],
    bad: [{ a: 'x' }],
  },
  nullable: { type: z.string().nullable(), good: ['a', null], bad: [1] },
  default: { type: z.object({ a: z.string().default('x') }), good: [{ a: 'y' }], bad: [{ a: 1 }] },
  length: { type: z.string().length(2), good: ['ab'], bad: ['a', 'abc'] },
  regex: { type: z.string().regex(/^a/).regex(/b$/), good: ['ab', 'axb'], bad: ['a', 'b'] },
  lowercase: { type: z.string().lowercase(), good: ['abc 1'], bad: ['aBc'] },
  uppercase: { type: z.string().uppercase(), good: ['ABC'], bad: ['AbC'] },
  includes: { type: z.string().includes('x.y'), good: ['ax.yb'], bad: ['axyb'] },
  startsWith: { type: z.string().startsWith('a'), good: ['ab'], bad: ['ba'] },
  endsWith: { type: z.string().endsWith('b'), good: ['ab'], bad: ['ba'] },
  templateLiteral: {
    type: z.templateLiteral(['a', z.number(), z.enum(['px', 'em'])]),
    good: ['a1px', 'a-2.5em'],
    bad: ['a1', '1px'],
  },
  email: {
    type: z.email(),
    good: ['ada.l@example.com', "o'brien+x@a.co"],
    bad: ['a@b', '.a@b.co'],
  },
  url: {
    type: z.url(),
    good: [
      'https://example.com',
      'https://user@example.com:8080/a/b?c=d&e=%20#f',
      'http://localhost:3000/',
      'http://127.0.0.1/x',
      'http://[::1]/x',
      'mailto:a@example.com',
      'urn:isbn:0451450523',
      'data:text/plain,hi',
    ],
    bad: ['example', '/a', 'https://', 'a b:c'],
  },
  httpUrl: { type: z.httpUrl(), good: ['https://example.com/a'], bad: ['x'] },
  hostname: { type: z.hostname(), good: ['example.com', 'localhost'], bad: ['a_b', '-a.com'] },
  uuid: { type: z.uuid(), good: [uuid], bad: ['x', `${uuid}0`] },
  uuidv4: { type: z.uuidv4(), good: ['9b2c3d4e-5f60-4a7b-8c9d-0e1f2a3b4c5d'], bad: [uuid] },
  uuidv7: { type: z.uuidv7(), good: [uuid], bad: ['9b2c3d4e-5f60-4a7b-8c9d-0e1f2a3b4c5d'] },
  guid: { type: z.guid(), good: [uuid], bad: ['x'] },
  cuid: { type: z.cuid(), good: ['cjld2cjxh0000qzrmn831i7rn'], bad: ['x'] },
  cuid2: { type: z.cuid2(), good: ['tz4a98xxat96iws9zmbrgj3a'], bad: ['A-b'] },
  ulid: {
    type: z.ulid(),
    good: ['01ARZ3NDEKTSV4RRFFQ69G5FAV'],
    bad: ['81ARZ3NDEKTSV4RRFFQ69G5FAV'],
  },
  nanoid: { type: z.nanoid(), good: ['V1StGXR8_Z5jdHi6B-myT'], bad: ['short'] },
  xid: { type: z.xid(), good: ['9m4e2mr0ui3e8a215n4g'], bad: ['z'] },
  ksuid: { type: z.ksuid(), good: ['0ujtsYcgvSTl8PAuAdqWYSMnLOv'], bad: ['0'] },
  ipv4: { type: z.ipv4(), good: ['127.0.0.1'], bad: ['256.0.0.1'] },
  ipv6: { type: z.ipv6(), good: ['::1', '2001:db8::1'], bad: [':::'] },
  cidrv4: { type: z.cidrv4(), good: ['10.0.0.0/8'], bad: ['10.0.0.0/33'] },
  cidrv6: { type: z.cidrv6(), good: ['2001:db8::/32'], bad: ['::/129'] },
  mac: { type: z.mac(), good: ['00:1A:2B:3C:4D:5E'], bad: ['00-1A-2B-3C-4D-5E'] },
  base64: { type: z.base64(), good: ['', 'SGk=', 'SGVsbG8h'], bad: ['SGk'] },
  base64url: { type: z.base64url(), good: ['SGk', '_-8'], bad: ['SGk=', '+'] },
  hex: { type: z.hex(), good: ['00ff'], bad: ['0g'] },
  hash: { type: z.hash('sha256'), good: ['0'.repeat(64)], bad: ['0'] },
  jwt: { type: z.jwt(), good: [jwt], bad: ['a.b', 'a.b.c'] },
  emoji: { type: z.emoji(), good: ['🙂', '👨‍👩‍👧'], bad: ['a', ''] },
  e164: { type: z.e164(), good: ['+14155552671'], bad: ['14155552671', '+0123456'] },
  isoDate: { type: z.iso.date(), good: ['2024-02-29'], bad: ['2023-02-29'] },
  isoTime: { type: z.iso.time(), good: ['12:30', '12:30:15.5'], bad: ['24:00', '12:30:00Z'] },
  isoDatetime: {
    type: z.iso.datetime(),
    good: ['2024-02-29T12:30:00Z', '2024-02-29T12:30:00.123Z'],
    bad: ['2024-02-29T12:30:00', '2024-02-30T12:30:00Z'],
  },
  isoDatetimeWithOffset: {
    type: z.iso.datetime({ offset: true }),
    good: ['2024-02-29T12:30:00+02:00'],
    bad: ['2024-02-29T12:30:00+2'],
  },
  isoDatetimeLocal: {
    type: z.iso.datetime({ local: true }),
    good: ['2024-02-29T12:30:00', '2024-02-29T12:30'],
    bad: ['2024-02-29'],
  },
  isoDuration: {
    type: z.iso.duration(),
    good: ['P1Y2M3DT4H5M6S', 'PT1H', 'P2W'],
    bad: ['P', 'PT', '1D', 'P1W1D'],
  },
  multipleOf: { type: z.number().multipleOf(0.01), good: [0.07, 1.25, 3], bad: [0.075] },
  positive: { type: z.number().positive(), good: [0.1, 5], bad: [0, -1] },
  stringbool: { type: z.stringbool(), good: [], bad: [] },
  json: { type: z.json(), good: [null, { a: [1, 'b', { c: true }] }], bad: [] },
  file: { type: z.file(), good: [], bad: [] },
  lazy: {
    type: tree,
    good: [{ name: 'a', children: [{ name: 'b', children: [] }] }],
    bad: [{ name: 'a' }],
  },
  never: { type: z.object({ a: z.never().optional() }), good: [{}], bad: [{ a: 1 }] },
  readonly: { type: z.array(z.string()).readonly(), good: [['a']], bad: [[1]] },
  pipe: { type: z.string().transform(Number).pipe(z.number()), good: [], bad: [] },
  brand: { type: z.string().brand('x'), good: ['a'], bad: [] },
};

const targets = ['draft-2020-12', 'draft-7', 'draft-4', 'openapi-3.0'] as const;

/** Every type in every dialect that zod writes. */
export function zodSuite(): readonly SuiteCase[] {
  return Object.entries(zodCases).flatMap(([name, { type, good, bad }]) =>
    targets.map((target) => ({
      name: `${name} (${target})`,
      schema: z.toJSONSchema(type, { target }),
      tests: [
        ...good.map((value) => [value, true] as const),
        // Older dialects lack words for some types: their schemas take what zod does not.
        ...(target.startsWith('draft-2020') || target === 'draft-7' ? bad : []).map(
          (value) => [value, false] as const,
        ),
      ],
    })),
  );
}
