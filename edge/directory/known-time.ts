/**
 * The latest time that an edge has seen, over restarts. Prices go by it while the machine's clock
 * is behind it: what was sold yesterday is sold today, whatever a clock that was set back says.
 */
import type { Log } from '../../infra/log.ts';

/** A clock that is behind by more was ahead before, and what it said then counts for nothing. */
const trustedBehindMs = 32 * 86_400_000;
/** Clocks are set right by this much all the time. */
const unremarkableMs = 60_000;

export interface KnownTime {
  /** Returns `nowMs`, or the latest time known where that is later and can be believed. */
  of(nowMs: number): number;
  /** Sentences for the operator; [] while the clock is not remarkably behind. */
  warnings(nowMs: number): readonly string[];
  /** Null before any time was seen. */
  latestMs(): number | null;
}

export function createKnownTime(options: {
  /** The latest time of an earlier process; null: there was none. */
  readonly latestMs: number | null;
  readonly log: Log;
}): KnownTime {
  let latest = options.latestMs;
  let isTold = false;
  return {
    of(nowMs) {
      if (latest === null || nowMs >= latest) {
        latest = nowMs;
        isTold = false;
        return nowMs;
      }
      const behindMs = latest - nowMs;
      if (behindMs > unremarkableMs && !isTold) {
        const advice = 'set the clock right; prices of the latest time known stand';
        options.log('warn', 'clock-went-back', {
          level: 'warn',
          behindMs,
          latestMs: latest,
          advice,
        });
        isTold = true;
      }
      return behindMs <= trustedBehindMs ? latest : nowMs;
    },
    warnings(nowMs) {
      const behindMs = (latest ?? nowMs) - nowMs;
      if (behindMs <= unremarkableMs) return [];
      const prices =
        behindMs <= trustedBehindMs
          ? 'prices of that time stand'
          : 'prices go by the clock, because a time so far ahead is not believed';
      const since = new Date(nowMs + behindMs).toISOString();
      return [`The clock is behind ${since}, which this edge has seen: ${prices}. Set it right.`];
    },
    latestMs: () => latest,
  };
}

/** Reads the file `latest-time` of a data folder; null for text that no edge wrote. */
export function parseLatestTime(text: string): number | null {
  return /^\d{1,15}\n$/.test(text) ? Number(text) : null;
}
