/**
 * A clock that never goes back, over one that may: what was seen a moment ago stays so. How long a
 * worker has been silent must not depend on somebody setting the machine's time.
 */
export function steadyClock(clock: { nowMs(): number }): { nowMs(): number } {
  let aheadMs = 0;
  let lastMs = -Infinity;
  return {
    nowMs() {
      const nowMs = clock.nowMs() + aheadMs;
      if (nowMs < lastMs) aheadMs += lastMs - nowMs;
      lastMs = Math.max(lastMs, nowMs);
      return lastMs;
    },
  };
}
