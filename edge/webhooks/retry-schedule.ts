/**
 * The times of a delivery's tries: the schedule that the Standard Webhooks specification has as its
 * example, over three days. A webhook of which every try of five days failed is disabled.
 */

const secondMs = 1_000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;

/** Pauses after the first try, the second and so on. */
const pausesMs = [
  5 * secondMs,
  5 * minuteMs,
  30 * minuteMs,
  2 * hourMs,
  5 * hourMs,
  10 * hourMs,
  14 * hourMs,
  20 * hourMs,
  24 * hourMs,
];
export const triesMax = pausesMs.length + 1;

export const disableAfterMs = 5 * 24 * hourMs;
/** A receiver that asks for longer is tried after this. */
const retryAfterMsMax = 24 * hourMs;
/** A part of each pause is random, so that what failed together does not come back together. */
const jitterShare = 0.1;

/**
 * @param random a number from 0 to 1
 * @returns null when the delivery is given up
 */
export function pauseAfter(
  tries: number,
  options: { readonly retryAfterMs: number | null; readonly random: number },
): number | null {
  const pauseMs = pausesMs[tries - 1];
  if (pauseMs === undefined) return null;
  const asked = Math.min(options.retryAfterMs ?? 0, retryAfterMsMax);
  return Math.max(Math.round(pauseMs * (1 + jitterShare * options.random)), asked);
}
