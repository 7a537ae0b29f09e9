import { strict as assert } from 'node:assert';

/** Element `index` of a list that must have it. */
export function at<T>(list: ArrayLike<T>, index: number): T {
  const element = list[index];
  // The sentence is made only where it is needed: this stands in loops.
  if (element === undefined) absent(list.length, index);
  return element;
}

function absent(length: number, index: number): never {
  assert.fail(`there is no element ${index} among ${length}`);
}

/**
 * For hot loops, as `list[index] ?? missing()`: a read through `at`, which sees lists of every
 * kind, takes longer there.
 */
export function missing(): never {
  assert.fail('an index lies outside of its list');
}
