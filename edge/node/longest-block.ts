/** Measures how long the event loop of this thread was kept: all other requests waited for it. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

const resolutionMs = 10;

/** @returns a function that tells the longest wait since it was called last, in milliseconds. */
export function watchEventLoop(): () => number {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  return () => {
    // The histogram counts the time between two looks; it is empty before the first.
    const longestMs = Math.max(0, delay.max / 1e6 - resolutionMs);
    delay.reset();
    return longestMs;
  };
}
