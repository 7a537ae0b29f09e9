/** A test runner of a few lines: the GPU host has Node and nothing of npm's. */
import { calcDiff } from '../support/worker/golden.ts';

export async function test(name: string, run: () => void | Promise<void>): Promise<void> {
  const start = performance.now();
  try {
    await run();
    console.log(`ok   ${name} (${Math.round(performance.now() - start)} ms)`);
  } catch (cause) {
    process.exitCode = 1;
    console.log(`FAIL ${name}: ${cause instanceof Error ? cause.message : String(cause)}`);
    if (process.env['STACKS'] !== undefined && cause instanceof Error) console.log(cause.stack);
  }
}

export interface Tolerance {
  /** Largest difference allowed, as |a - b| <= absolute + relative * |b|. */
  readonly absolute: number;
  readonly relative: number;
  /** Bound of 1 - 2 sum(ab) / sum(a^2 + b^2). */
  readonly calcDiff: number;
}

/** Sums in another order and fused products; nothing else differs in float32. */
export const exactTolerance: Tolerance = { absolute: 2e-5, relative: 2e-5, calcDiff: 1e-9 };
/** One bfloat16 unit, where a sum falls on the other side of a rounding. */
export const bf16Tolerance: Tolerance = { absolute: 2e-3, relative: 2 ** -7, calcDiff: 2e-5 };
/**
 * Sparse attention and products in fp8, as their kernels' authors test them
 * (docs/engine-spec.md#tolerances).
 */
export const tensorCoreTolerance: Tolerance = {
  absolute: 8e-4,
  relative: 3.01 / 128,
  calcDiff: 1e-3,
};

/**
 * Two quantised products in a row: where a sum falls on the other side of a rounding, the second
 * product gets another e4m3 code, an eighth of its value away.
 */
export const chainedTolerance: Tolerance = { absolute: 5e-3, relative: 2 ** -5, calcDiff: 1e-5 };

/** Every element must be finite where the expected one is, and close. */
export function expectClose(
  actual: Float32Array,
  expected: Float32Array,
  tolerance: Tolerance,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${actual.length} values where ${expected.length} are expected`);
  }
  let magnitude = 0;
  for (const value of expected) magnitude = Math.max(magnitude, Math.abs(value));
  let bad = 0;
  let worst = '';
  let excess = 0;
  expected.forEach((value, i) => {
    const other = actual[i] ?? Number.NaN;
    if (Object.is(value, other) || value === other) return;
    const scaled = tolerance.absolute * Math.max(1, magnitude);
    const over = Math.abs(other - value) / (scaled + tolerance.relative * Math.abs(value));
    if (over <= 1) return;
    bad++;
    if (!(over <= excess)) {
      excess = over;
      worst = `at ${i}: ${other} instead of ${value}`;
    }
  });
  const diff = calcDiff(actual, expected);
  if (bad > 0 || !(Math.abs(diff) < tolerance.calcDiff)) {
    throw new Error(`${bad} of ${expected.length} off, worst ${worst}; calc_diff ${diff}`);
  }
}

export function expectSame(actual: Float32Array, expected: Float32Array, what: string): void {
  let different = actual.length === expected.length ? 0 : Infinity;
  let first = -1;
  expected.forEach((value, i) => {
    if (Object.is(value, actual[i])) return;
    different++;
    if (first < 0) first = i;
  });
  if (different > 0) {
    throw new Error(
      `${what}: ${different} of ${expected.length} values differ, first at ${first}: ${actual[first]} and ${expected[first]}`,
    );
  }
}
