// Exact top-k of one row's scores: score descending, index ascending on ties, output ascending.
//
// Scores become integers of the same order. Histograms of the digits (11, 11 and 10 bits) find the
// k-th largest, the second and third only over the keys that share the digits before; one ascending
// pass then takes all above it and the first ones equal to it.
//
// 256 of 3,840 random scores on one core of an EPYC (Zen 4), per row: three histograms over all
// keys and branches on each 18 us; two histograms side by side, lists and no branches 14 us.

import { notANumberAt } from './op-codes';

@unmanaged
class TopKArguments {
  firstRow: u32;
  /** [rows of this chunk][scoreStride] f32, overwritten */
  scores: usize;
  scoreStride: usize;
  /** [rows] i32 */
  positions: usize;
  width: u32;
  /** [rows][width] i32 */
  out: usize;
  /** [rows] i32 */
  counts: usize;
}

const bins: u32 = 2048;

/** Replaces the scores by integers of their order; -0 becomes +0. Returns whether one was NaN. */
function orderPreserving(scores: usize, count: u32): bool {
  let nan = i32x4.splat(0);
  // Up to three scores behind the last are converted too: the row is padded to whole pages.
  for (let i: u32 = 0; i < count; i += 4) {
    const at = scores + (i << 2);
    const score = f32x4.add(v128.load(at), f32x4.splat(0));
    const bad = f32x4.ne(score, score);
    if (v128.any_true(bad)) {
      for (let j = i; j < min(i + 4, count); j++) {
        const value = load<f32>(scores + (j << 2));
        if (value != value) nan = i32x4.splat(-1);
      }
    }
    // Negative floats have all bits flipped, others the sign.
    const flip = v128.or(i32x4.shr_s(score, 31), i32x4.splat(0x80000000));
    v128.store(at, v128.xor(score, flip));
  }
  return v128.any_true(nan);
}

/**
 * The digit (key >> shift) & (bins - 1) in which the `wanted`-th largest of keys[0, count) lies,
 * low half, and how many of that digit are wanted, high half.
 */
function digitOf(keys: usize, count: u32, shift: u32, wanted: u32, histogram: usize): u64 {
  // Neighbouring scores often fall in one bin: two histograms halve the wait for the last count.
  const second = histogram + (bins << 2);
  memory.fill(histogram, 0, bins << 3);
  const mask: u32 = (bins - 1) << 2;
  const end = keys + ((count & ~1) << 2);
  let at = keys;
  for (; at != end; at += 8) {
    const a = histogram + (digitBytes(load<u32>(at), shift) & mask);
    store<u32>(a, load<u32>(a) + 1);
    const b = second + (digitBytes(load<u32>(at, 4), shift) & mask);
    store<u32>(b, load<u32>(b) + 1);
  }
  if ((count & 1) != 0) {
    const a = histogram + (digitBytes(load<u32>(at), shift) & mask);
    store<u32>(a, load<u32>(a) + 1);
  }
  let digit = bins - 1;
  while (true) {
    const bin = histogram + (digit << 2);
    const here = load<u32>(bin) + load<u32>(bin + (bins << 2));
    if (here >= wanted) return (<u64>wanted << 32) | digit;
    wanted -= here;
    digit--;
  }
}

/** The digit times 4, with what lies above it. */
// @ts-ignore: decorator
@inline
function digitBytes(key: u32, shift: u32): u32 {
  return (key >> shift) << 2;
}

/** Copies the keys whose bits from `shift` on equal `digit` to `out`; returns how many. */
function keysOfDigit(keys: usize, count: u32, shift: u32, digit: u32, out: usize): u32 {
  let to = out;
  for (let i: u32 = 0; i < count; i++) {
    const key = load<u32>(keys + (i << 2));
    // Stored always, kept if it fits: a branch would be mispredicted too often.
    store<u32>(to, key);
    to += <usize>((key >> shift) & (bins - 1)) == digit ? 4 : 0;
  }
  return <u32>(to - out) >> 2;
}

/** Scratch of `kthKey` beside room for all keys. */
export const histogramBytes: u32 = bins << 3;

/**
 * The `wanted`-th largest of keys[0, count), low half, and how many of its equals are wanted, high
 * half.
 */
export function kthKey(keys: usize, count: u32, wanted: u32, scratch: usize): u64 {
  const list = scratch + histogramBytes;
  let step = digitOf(keys, count, 21, wanted, scratch);
  let threshold = <u32>step << 21;
  let left = keysOfDigit(keys, count, 21, <u32>step, list);
  step = digitOf(list, left, 10, <u32>(step >> 32), scratch);
  threshold |= <u32>step << 10;
  left = keysOfDigit(list, left, 10, <u32>step, list);
  // The last digit has 10 bits; the lowest of the digit above comes along and is the same for all.
  step = digitOf(list, left, 0, <u32>(step >> 32), scratch);
  return (step & 0xffffffff00000000) | (threshold | (<u32>step & 1023));
}

export function topK(at: usize, task: u32, scratch: usize): void {
  const job = changetype<TopKArguments>(at);
  const r = job.firstRow + task;
  const width = job.width;
  const count = load<u32>(job.positions + (r << 2)) + 1;
  const out = job.out + r * (width << 2);
  store<u32>(job.counts + (r << 2), min(count, width));
  if (count <= width) {
    for (let i: u32 = 0; i < count; i++) store<u32>(out + (i << 2), i);
    return;
  }

  const keys = job.scores + task * job.scoreStride;
  const list = scratch + histogramBytes;
  if (orderPreserving(keys, count)) atomic.store<i32>(notANumberAt, 1);
  const kth = kthKey(keys, count, width, scratch);
  const threshold = <u32>kth;
  let equalLeft = <u32>(kth >> 32);
  let to = list;
  for (let i: u32 = 0; i < count; i++) {
    const key = load<u32>(keys + (i << 2));
    const equal = i32(key == threshold) & i32(equalLeft != 0);
    equalLeft -= equal;
    store<u32>(to, i);
    to += <usize>(i32(key > threshold) | equal) << 2;
  }
  memory.copy(out, list, width << 2);
}
