/** Reads what the parts of a branch say of numbers. */
import { commonMultiple, multipleOf, multipleOfMax } from './numbers.ts';
import type { Bound, Multiple, NumberRange } from './numbers.ts';
import type { Part } from './schema-branches.ts';
import { boundAt, isObject, numberAt, tighterBound, unsupported } from './schema-keywords.ts';

/** @throws SchemaError */
export function numberRange(parts: readonly Part[], type: 'integer' | 'number'): NumberRange {
  let min: Bound | null = null;
  let max: Bound | null = null;
  let multiple: Multiple | null = null;
  let isFraction = false;
  for (const { schema, path } of parts) {
    min = tighterBound('minimum', min, boundAt(schema, 'minimum', path));
    max = tighterBound('maximum', max, boundAt(schema, 'maximum', path));
    const stated = numberAt(schema, 'multipleOf', path);
    if (stated !== null) {
      const next = multipleOf(stated);
      const common: Multiple | null =
        next === null || multiple === null ? next : commonMultiple(multiple, next);
      const reason = `its digits have to make a number from 1 to ${multipleOfMax}`;
      if (common === null) throw unsupported([...path, 'multipleOf'], reason);
      multiple = common;
    }
    isFraction ||=
      schema.type === 'number' && isObject(schema.not) && schema.not.type === 'integer';
  }
  return { min, max, multipleOf: multiple, ...(isFraction && type === 'number' && { isFraction }) };
}
