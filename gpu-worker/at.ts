import { strict as assert } from 'node:assert';

/** Element `index` of a list that must have it. */
export function at<T>(list: ArrayLike<T>, index: number): T {
  const element = list[index];
  assert(element !== undefined, `there is no element ${index} among ${list.length}`);
  return element;
}

/**
 * For hot loops, as `list[index] ?? missing()`: a read through `at`, which sees lists of every
 * kind, takes ten times as long there.
 */
export function missing(): never {
  assert.fail('an index lies outside of its list');
}
