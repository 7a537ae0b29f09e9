/** Random JSON schemas of the subset that output can be held to, and what judges values by them. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import fc from 'fast-check';

export type Schema = boolean | Record<string, unknown>;

const names = fc.oneof(
  // Not __proto__: the validator overlooks it.
  fc.constantFrom('a', 'b', 'city', 'x-1', 'ключ', 'a"b', 'back\\slash', 'a\nb', ''),
  fc.string({ unit: 'grapheme', maxLength: 6 }),
);

const scalar = fc.oneof(
  fc.constant<unknown>(null),
  fc.boolean(),
  fc.integer({ min: -1000, max: 1000 }),
  fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e9, max: 1e9 }),
  fc.string({ unit: 'grapheme', maxLength: 8 }),
);

const patterns = [
  '^[a-z]{2,5}-\\d+$',
  'foo',
  '^(yes|no)$',
  '^\\w+( \\w+){0,3}$',
  '[^"\\\\]{2}$',
  '^\\S+@\\S+\\.\\S+$',
  '^[А-Яа-я🙂]{1,4}\\n?$',
  '^a|b$',
  '^$',
  '^(?:x{2}|[^\\x00-\\x1f]+)$',
  '^\\u{1F600}?\\ud83d\\ude01*$',
];

const stringSchema = fc.oneof(
  fc.constant<Schema>({ type: 'string' }),
  fc
    .record(
      { minLength: fc.nat(5), maxLength: fc.integer({ min: 5, max: 12 }) },
      { requiredKeys: [] },
    )
    .map((length): Schema => ({ type: 'string', ...length })),
  fc.constantFrom(...patterns).map((pattern): Schema => ({ type: 'string', pattern })),
  fc
    .constantFrom(
      'date',
      'time',
      'date-time',
      'duration',
      'email',
      'hostname',
      'ipv4',
      'ipv6',
      'uuid',
      'uri',
      'uri-reference',
      'uri-template',
      'json-pointer',
      'relative-json-pointer',
      'byte',
    )
    .map((format): Schema => ({ type: 'string', format })),
  fc.nat(3).map((minLength): Schema => ({ type: 'string', minLength, pattern: '^[a-f"\\n]*$' })),
);

const bound = fc.oneof(
  fc.integer({ min: -120, max: 120 }),
  fc.integer({ min: -99_999, max: 99_999 }).map((each) => each / 1000),
  fc.constantFrom(0, -0.5, 1e6, -1e6, 123456.789),
);

const numberSchema = fc.oneof(
  fc.constantFrom<Schema>({ type: 'number' }, { type: 'integer' }),
  fc
    .tuple(fc.constantFrom('integer', 'number'), bound, bound, fc.constantFrom(0, 1, 2, 3))
    .map(([type, one, other, kind]): Schema => {
      const [low, high] = [Math.min(one, other), Math.max(one, other) + 1];
      return {
        type,
        ...(kind !== 1 && { [kind === 2 ? 'exclusiveMinimum' : 'minimum']: low }),
        ...(kind !== 0 && { [kind === 3 ? 'exclusiveMaximum' : 'maximum']: high }),
      };
    }),
  fc
    .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: -50, max: 50 }))
    .map(([multipleOf, minimum]): Schema => ({ type: 'integer', multipleOf, minimum })),
  fc
    .constantFrom(0.01, 0.25, 5, 12.5)
    .map((multipleOf): Schema => ({ type: 'number', multipleOf, maximum: 1000 })),
);

/** Builds a condition from entries: an object written with a `then` looks like a promise. */
export function conditional(condition: Schema, then: Schema, otherwise: Schema): object {
  return Object.fromEntries(
    Object.entries({ if: condition, else: otherwise }).concat([['then', then]]),
  );
}

/**
 * Tells if a string has pattern and format: where no text fits both, the pattern stands and the
 * format, a note, does not.
 */
function saysFormatAndPattern(schema: Schema): boolean {
  const text = JSON.stringify(schema);
  return text.includes('"format":') && text.includes('"pattern":');
}

/** Schemas that say several things together: merged, or told apart by what does not fit. */
const together = (tie: () => fc.Arbitrary<Schema>): fc.Arbitrary<Schema> => {
  const pair = fc.tuple(tie(), tie());
  const branch = fc.record(
    {
      properties: fc.record({ a: tie(), b: tie() }, { requiredKeys: [] }),
      required: fc.subarray(['a', 'b']),
    },
    { requiredKeys: [] },
  );
  const merged = fc.oneof(
    pair.map((allOf): Schema => ({ allOf })),
    pair.map(([one, other]): Schema => ({ anyOf: [one, other], not: { type: ['array', 'null'] } })),
    fc.tuple(stringSchema, stringSchema).map((allOf): Schema => ({ allOf, type: 'string' })),
    fc.tuple(numberSchema, numberSchema).map((allOf): Schema => ({ allOf })),
    fc
      .tuple(numberSchema, fc.array(bound, { minLength: 1, maxLength: 3 }))
      .map(([one, values]): Schema => ({ allOf: [one], not: { enum: values } })),
    fc.tuple(branch, branch, branch, branch).map(([base, one, two, three]): Schema => ({
      ...base,
      type: 'object',
      ...conditional({ ...one, type: 'object' }, two, three),
    })),
    fc.tuple(pair, fc.nat(2)).map(([oneOf, count]): Schema => ({
      type: 'object',
      properties: { a: { oneOf }, b: { type: 'null' } },
      minProperties: count,
      dependentRequired: { a: ['b'] },
      additionalProperties: false,
    })),
    fc.tuple(tie(), tie(), tie(), fc.nat(3)).map(([a, x, others, maxProperties]): Schema => ({
      type: 'object',
      properties: { a },
      patternProperties: { '^x': x, '\\d$': { type: ['number', 'string', 'object'] } },
      additionalProperties: others,
      propertyNames: { maxLength: 4 },
      maxProperties,
    })),
    fc
      .tuple(fc.array(tie(), { minLength: 1, maxLength: 3 }), tie(), fc.nat(4))
      .map(([prefixItems, items, max]): Schema => ({
        type: 'array',
        prefixItems,
        items,
        maxItems: max,
      })),
    fc.tuple(tie(), fc.nat(2), fc.nat(2)).map(([items, min, more]): Schema => ({
      type: 'array',
      items,
      contains: { type: ['string', 'number'] },
      minContains: min,
      maxContains: min + more,
      maxItems: 5,
    })),
    fc.array(scalar, { maxLength: 5 }).map((values): Schema => ({
      type: 'array',
      items: { enum: [true, ...values] },
      uniqueItems: true,
    })),
  );
  return merged.filter((schema) => !saysFormatAndPattern(schema));
};

const { schema } = fc.letrec<{ schema: Schema; object: Schema }>((tie) => ({
  schema: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    stringSchema,
    numberSchema,
    fc.constantFrom<Schema>(
      { type: 'boolean' },
      { type: 'null' },
      true,
      {},
      { description: 'any' },
    ),
    fc.array(scalar, { minLength: 1, maxLength: 4 }).map((values): Schema => ({ enum: values })),
    scalar.map((value): Schema => ({ const: value })),
    fc
      .uniqueArray(
        fc.constantFrom('string', 'number', 'integer', 'boolean', 'null', 'object', 'array'),
        {
          minLength: 1,
          maxLength: 3,
        },
      )
      .map((type): Schema => ({ type })),
    fc.constantFrom<Schema>({ $ref: '#/$defs/node' }, { $ref: '#/$defs/leaf' }),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf): Schema => ({ anyOf })),
    fc
      .tuple(stringSchema, numberSchema)
      .map((oneOf): Schema => ({ oneOf: [...oneOf, { type: 'null' }] })),
    fc.tuple(tie('schema'), tie('schema')).map((options): Schema => ({
      oneOf: options.map((value, kind) => ({
        type: 'object',
        properties: { kind: { const: kind }, value },
        required: ['kind'],
      })),
    })),
    fc
      .tuple(
        tie('schema'),
        fc.record(
          { minItems: fc.nat(2), maxItems: fc.integer({ min: 2, max: 4 }) },
          { requiredKeys: [] },
        ),
      )
      .map(([items, count]): Schema => ({ type: 'array', items, ...count })),
    tie('object'),
    together(() => tie('schema')),
  ),
  object: fc
    .tuple(
      fc.uniqueArray(fc.tuple(names, tie('schema'), fc.boolean()), {
        maxLength: 4,
        selector: ([name]) => name,
      }),
      fc.oneof(fc.boolean(), tie('schema'), fc.constant(undefined)),
    )
    .map(([properties, additionalProperties]): Schema => ({
      type: 'object',
      properties: Object.fromEntries(properties.map(([name, each]) => [name, each])),
      required: properties.filter(([, , isRequired]) => isRequired).map(([name]) => name),
      ...(additionalProperties !== undefined && { additionalProperties }),
    })),
}));

/** A document with definitions that its schemas refer to, one of them to itself. */
export const randomSchema: fc.Arbitrary<Record<string, unknown>> = fc
  .tuple(schema, schema)
  .map(([root, leaf]) => ({
    anyOf: [root],
    $defs: {
      // A reference to itself alone is no schema, and sends the validator round in circles.
      leaf: JSON.stringify(leaf) === '{"$ref":"#/$defs/leaf"}' ? { type: 'string' } : leaf,
      node: {
        type: 'object',
        properties: {
          label: { type: 'string', maxLength: 8 },
          next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] },
          children: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 },
        },
        required: ['label', 'next'],
        additionalProperties: false,
      },
    },
  }));

/** Independent of ours: null if the value is valid, else what is wrong with it. */
export function faultOf(document: Schema, value: unknown): string | null {
  const ajv = new Ajv2020({ strict: false, validateFormats: true, multipleOfPrecision: 9 });
  formats.default(ajv);
  return ajv.validate(document, value) ? null : ajv.errorsText();
}
