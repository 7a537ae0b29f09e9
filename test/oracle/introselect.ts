/**
 * The pick of the goldens' generator among equal scores. It took `torch.topk` on the CPU, which
 * leaves ties in the order that the C++ library's introselect happens to make: pairs of score and
 * index, median-of-three pivots, unguarded partitions, an insertion sort of the last three. Nothing
 * but the goldens needs this; sift's own rule is score descending, then index ascending.
 */
import { at } from './vector.ts';

interface Scored {
  readonly score: number;
  readonly index: number;
}

export function introselect(scores: ArrayLike<number>, count: number): number[] {
  const items = Array.from(scores, (score, index): Scored => ({ score, index }));
  if (count < items.length) partitionAround(items, count - 1);
  return items.slice(0, count).map(({ index }) => index);
}

/** Moves items until none after position `nth` is better than those up to it. */
function partitionAround(items: Scored[], nth: number): void {
  let first = 0;
  let last = items.length;
  while (last - first > 3) {
    moveMedianToFront(items, first, last);
    const cut = partition(items, first, last);
    if (cut <= nth) first = cut;
    else last = cut;
  }
  insertionSort(items, first, last);
}

function isBetter(items: Scored[], a: number, b: number): boolean {
  return at(items, a).score > at(items, b).score;
}

function swap(items: Scored[], a: number, b: number): void {
  [items[a], items[b]] = [at(items, b), at(items, a)];
}

/** The median of the second, the middle and the last item goes to the front. */
function moveMedianToFront(items: Scored[], first: number, last: number): void {
  const second = first + 1;
  const middle = first + Math.floor((last - first) / 2);
  const end = last - 1;
  const [better, worse] = isBetter(items, second, middle) ? [second, middle] : [middle, second];
  if (isBetter(items, worse, end)) swap(items, first, worse);
  else if (isBetter(items, better, end)) swap(items, first, end);
  else swap(items, first, better);
}

/**
 * Items better than the first go left of the cut that is returned, worse ones right, equal ones
 * either.
 */
function partition(items: Scored[], first: number, last: number): number {
  let left = first + 1;
  let right = last - 1;
  for (;;) {
    while (isBetter(items, left, first)) left += 1;
    while (isBetter(items, first, right)) right -= 1;
    if (left >= right) return left;
    swap(items, left, right);
    left += 1;
    right -= 1;
  }
}

function insertionSort(items: Scored[], first: number, last: number): void {
  for (let end = first + 1; end < last; end++) {
    for (let i = end; i > first && isBetter(items, i, i - 1); i--) swap(items, i, i - 1);
  }
}
