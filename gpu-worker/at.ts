import assert from 'node:assert/strict';

/** Element `index` of a list that must have it. */
export function at<T>(list: ArrayLike<T>, index: number): T {
  const element = list[index];
  assert(element !== undefined, `there is no element ${index} among ${list.length}`);
  return element;
}
