/**
 * Schemas in the form that pydantic 2 documents, each with values that its model takes, and others.
 */
import type { SuiteCase } from './schema-suite.ts';

interface Documented {
  readonly schema: unknown;
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

const model = (rules: object): object => ({
  type: 'object',
  title: 'Model',
  required: ['value'],
  properties: { value: { title: 'Value', ...rules } },
});
const values = (list: readonly unknown[]): readonly unknown[] => list.map((value) => ({ value }));

function field(rules: object, good: readonly unknown[], bad: readonly unknown[]): Documented {
  return { schema: model(rules), good: values(good), bad: [...values(bad), {}] };
}

const cat = {
  properties: {
    kind: { const: 'cat', title: 'Kind', type: 'string' },
    lives: { default: 9, maximum: 9, minimum: 0, title: 'Lives', type: 'integer' },
  },
  required: ['kind'],
  title: 'Cat',
  type: 'object',
};
const dog = {
  properties: {
    kind: { const: 'dog', title: 'Kind', type: 'string' },
    barks: { exclusiveMinimum: 0, title: 'Barks', type: 'number' },
  },
  required: ['kind', 'barks'],
  title: 'Dog',
  type: 'object',
};
const mapping = { cat: '#/$defs/Cat', dog: '#/$defs/Dog' };

const documented: Readonly<Record<string, Documented>> = {
  Optional: field(
    { anyOf: [{ type: 'string' }, { type: 'null' }], default: null },
    ['a', null],
    [1],
  ),
  Literal: field({ enum: ['a', 1, true], examples: ['a'] }, ['a', 1, true], ['b']),
  'Literal of one': field({ const: 'a', type: 'string' }, ['a'], ['b']),
  datetime: field({ format: 'date-time', type: 'string' }, ['2024-02-29T12:30:00Z'], ['now']),
  date: field({ format: 'date', type: 'string' }, ['2024-02-29'], ['2023-02-29']),
  time: field({ format: 'time', type: 'string' }, ['12:30:00Z'], ['25:00:00Z']),
  timedelta: field({ format: 'duration', type: 'string' }, ['P3DT4H'], ['3 days']),
  UUID: field({ format: 'uuid', type: 'string' }, ['018f3a1e-7b1c-7cc0-9a54-0d3f1f2b3c4d'], ['x']),
  AnyUrl: field({ format: 'uri', minLength: 1, type: 'string' }, ['https://example.com/'], ['x']),
  HttpUrl: field(
    { format: 'uri', maxLength: 2083, minLength: 1, type: 'string' },
    ['https://example.com/'],
    [''],
  ),
  EmailStr: field({ format: 'email', type: 'string' }, ['ada@example.com'], ['ada']),
  IPv4Address: field({ format: 'ipv4', type: 'string' }, ['10.0.0.1'], ['10.0.0.256']),
  IPvAnyAddress: field({ format: 'ipvanyaddress', type: 'string' }, ['10.0.0.1'], [1]),
  bytes: field({ format: 'binary', type: 'string' }, ['abc'], [1]),
  Path: field({ format: 'path', type: 'string' }, ['/tmp/a'], [1]),
  SecretStr: field({ format: 'password', type: 'string', writeOnly: true }, ['s'], [1]),
  Json: field(
    { contentMediaType: 'application/json', contentSchema: { type: 'integer' }, type: 'string' },
    ['1'],
    [1],
  ),
  Decimal: field(
    {
      anyOf: [{ type: 'number' }, { pattern: '^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$', type: 'string' }],
    },
    [1.5, '-0.25', '12'],
    ['-', 'abc', null],
  ),
  constr: field(
    { maxLength: 5, minLength: 2, pattern: '^[A-Z]+$', type: 'string' },
    ['AB'],
    ['A', 'ab'],
  ),
  conint: field(
    { exclusiveMaximum: 100, multipleOf: 5, minimum: 10, type: 'integer' },
    [95],
    [100, 7],
  ),
  confloat: field({ exclusiveMinimum: 0, maximum: 1, type: 'number' }, [0.5, 1], [0]),
  list: field(
    { items: { type: 'integer' }, maxItems: 2, minItems: 1, type: 'array' },
    [[1]],
    [[], [1, 2, 3]],
  ),
  tuple: field(
    {
      maxItems: 2,
      minItems: 2,
      prefixItems: [{ type: 'integer' }, { type: 'string' }],
      type: 'array',
    },
    [[1, 'a']],
    [[1], ['a', 1]],
  ),
  'set of literals': field(
    { items: { enum: ['a', 'b'], type: 'string' }, type: 'array', uniqueItems: true },
    [['b', 'a'], []],
    [['a', 'a']],
  ),
  dict: field(
    { additionalProperties: { type: 'integer' }, type: 'object' },
    [{ a: 1 }],
    [{ a: 'b' }],
  ),
  'dict of any': field({ additionalProperties: true, type: 'object' }, [{ a: [1] }], [1]),
  'dict of patterns': field(
    {
      patternProperties: { '^k': { type: 'null' } },
      propertyNames: { maxLength: 3 },
      type: 'object',
    },
    [{ k1: null }],
    [{ k1: 1 }, { k123: null }],
  ),
  'dict that is not empty': field(
    { minProperties: 1, maxProperties: 2, additionalProperties: { type: 'null' }, type: 'object' },
    [{ a: null }],
    [{}, { a: null, b: null, c: null }],
  ),
  'extra forbidden': {
    schema: {
      additionalProperties: false,
      properties: { a: { title: 'A', type: 'null' } },
      type: 'object',
    },
    good: [{}, { a: null }],
    bad: [{ b: 1 }],
  },
  discriminator: {
    schema: {
      $defs: { Cat: cat, Dog: dog },
      properties: {
        pet: {
          discriminator: { mapping, propertyName: 'kind' },
          oneOf: [{ $ref: '#/$defs/Cat' }, { $ref: '#/$defs/Dog' }],
        },
      },
      required: ['pet'],
      type: 'object',
    },
    good: [{ pet: { kind: 'cat', lives: 3 } }, { pet: { kind: 'dog', barks: 0.5 } }],
    bad: [{ pet: { kind: 'dog' } }, { pet: { kind: 'cow' } }],
  },
  'reference with siblings': {
    schema: {
      $defs: { Cat: cat },
      properties: { pet: { $ref: '#/$defs/Cat', default: { kind: 'cat' }, description: 'A pet.' } },
      type: 'object',
    },
    good: [{ pet: { kind: 'cat' } }],
    bad: [{ pet: { kind: 'dog' } }],
  },
  'reference in allOf': {
    schema: {
      $defs: { Cat: cat },
      properties: { pet: { allOf: [{ $ref: '#/$defs/Cat' }], title: 'Pet' } },
      type: 'object',
    },
    good: [{ pet: { kind: 'cat' } }],
    bad: [{ pet: { kind: 'dog' } }],
  },
  recursive: {
    schema: {
      $defs: {
        Node: {
          properties: {
            next: { anyOf: [{ $ref: '#/$defs/Node' }, { type: 'null' }], default: null },
            value: { title: 'Value', type: 'integer' },
          },
          required: ['value'],
          title: 'Node',
          type: 'object',
        },
      },
      $ref: '#/$defs/Node',
    },
    good: [{ next: { next: null, value: 2 }, value: 1 }],
    bad: [{ next: {} }],
  },
  Enum: {
    schema: {
      $defs: { Color: { enum: ['red', 'blue'], title: 'Color', type: 'string' } },
      properties: { color: { $ref: '#/$defs/Color' } },
      required: ['color'],
      type: 'object',
    },
    good: [{ color: 'red' }],
    bad: [{ color: 'green' }],
  },
};

export function pydanticSuite(): readonly SuiteCase[] {
  return Object.entries(documented).map(([name, { schema, good, bad }]) => ({
    name,
    schema,
    tests: [
      ...good.map((value) => [value, true] as const),
      ...bad.map((value) => [value, false] as const),
    ],
  }));
}
