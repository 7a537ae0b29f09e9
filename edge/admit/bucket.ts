/**
 * A token bucket in integers. A level counts 1/60,000 of a unit, so that a minute's limit refills
 * by `elapsed ms * limit` without rounding. It may sink below 0: a request that turned out larger
 * than was reserved leaves a debt, which the following minutes pay off.
 */

export const partsPerUnit = 60_000;
/** The highest limit per minute: a level stays a safe integer with as much debt again. */
export const limitMax = 1_000_000_000;

export interface Bucket {
  readonly limitPerMinute: number;
  readonly level: number;
}

/**
 * The bucket as of now. null is a full one. Time is trusted in one direction and for a minute at
 * most: a clock that went back refills nothing, one that leapt ahead fills the bucket and no more.
 */
export function refill(
  stored: { readonly limitPerMinute: number; readonly level: number | null },
  elapsedMs: number,
): Bucket {
  const { limitPerMinute } = stored;
  const capacity = limitPerMinute * partsPerUnit;
  if (stored.level === null) return { limitPerMinute, level: capacity };
  const trustedMs = Math.min(Math.max(elapsedMs, 0), 60_000);
  return { limitPerMinute, level: Math.min(stored.level + trustedMs * limitPerMinute, capacity) };
}

/** 0 when the bucket has room. What is larger than the whole bucket waits for a full one. */
export function waitMs(bucket: Bucket, units: number): number {
  if (bucket.limitPerMinute === 0) return units === 0 ? 0 : 60_000;
  const needed = Math.min(units, bucket.limitPerMinute) * partsPerUnit;
  return Math.max(0, Math.ceil((needed - bucket.level) / bucket.limitPerMinute));
}

export function take(bucket: Bucket, units: number): Bucket {
  return { ...bucket, level: bucket.level - units * partsPerUnit };
}

/** Whole units that may be taken now. */
export function remaining(bucket: Bucket): number {
  return Math.max(0, Math.floor(bucket.level / partsPerUnit));
}

/** Milliseconds until the bucket is full. */
export function resetMs(bucket: Bucket): number {
  const missing = bucket.limitPerMinute * partsPerUnit - bucket.level;
  if (bucket.limitPerMinute === 0) return missing <= 0 ? 0 : 60_000;
  return Math.max(0, Math.ceil(missing / bucket.limitPerMinute));
}
