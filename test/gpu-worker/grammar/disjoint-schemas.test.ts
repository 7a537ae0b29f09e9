import { expect, test } from 'vitest';
import { SchemaDocument } from '../../../gpu-worker/grammar/schema-document.ts';
import { areDisjoint } from '../../../gpu-worker/grammar/disjoint-schemas.ts';

const tagged = (kind: object, required = ['kind']): object => ({
  type: 'object',
  properties: { kind },
  required,
});
const root = { $defs: { a: tagged({ const: 'a' }), again: { $ref: '#/$defs/again' } } };

test.each([
  [{ type: 'string' }, { type: 'number' }, true],
  [{ type: 'integer' }, { type: 'number' }, false],
  [{ type: ['string', 'null'] }, { type: ['null', 'array'] }, false],
  [{ type: ['string', 'null'] }, { type: ['boolean', 'array'] }, true],
  [{ const: 1 }, { const: 2 }, true],
  [{ enum: [1, 'a'] }, { enum: ['a'] }, false],
  [{ enum: [1, 2] }, { type: 'string' }, true],
  [{ enum: ['x'] }, { type: 'string', pattern: '^y' }, false],
  [tagged({ const: 'a' }), tagged({ const: 'b' }), true],
  [tagged({ const: 'a' }), tagged({ enum: ['b', 'a'] }), false],
  [tagged({ const: 'a' }), tagged({ const: 'b' }, []), false],
  [tagged({ const: 'a' }), { type: 'object' }, false],
  [{ $ref: '#/$defs/a' }, tagged({ const: 'b' }), true],
  [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/a' }, false],
  [{ $ref: '#/$defs/again' }, { type: 'string' }, false],
  [{}, { type: 'string' }, false],
  [true, { type: 'string' }, false],
])('%j and %j exclude one another: %s', (one, other, expected) => {
  const document = new SchemaDocument(root);
  const a = document.below(document.root, [], one);
  const b = document.below(document.root, [], other);
  expect(areDisjoint(a, b, document)).toBe(expected);
  expect(areDisjoint(b, a, document)).toBe(expected);
});
