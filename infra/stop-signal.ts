/** Programs that serve end gently at the first signal, and at once at the second. */

/**
 * A terminal sends Ctrl-C to npm and to the program, and npm passes its own on: one key arrives
 * twice. So do the signals of a supervisor that signals every process of a service.
 */
const sameSignalMs = 500;

/**
 * Runs `stop` at the first SIGINT or SIGTERM; a later one ends the process at once. Returns a
 * function that takes the handlers off again.
 */
export function onStopSignal(stop: (signal: 'SIGINT' | 'SIGTERM') => void): () => void {
  let stoppedAtMs: number | null = null;
  const handle = (signal: NodeJS.Signals): void => {
    const nowMs = performance.now();
    if (stoppedAtMs !== null) {
      if (nowMs - stoppedAtMs >= sameSignalMs) process.exit(exitCodeOf(signal));
      return;
    }
    stoppedAtMs = nowMs;
    stop(signal === 'SIGINT' ? 'SIGINT' : 'SIGTERM');
  };
  process.on('SIGINT', handle);
  process.on('SIGTERM', handle);
  return () => {
    process.off('SIGINT', handle);
    process.off('SIGTERM', handle);
  };
}

/** The code by which a shell reports a process that the signal ended. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' ? 130 : 143;
}

/** Aborted at the first SIGINT or SIGTERM; a later one ends the process at once. */
export function abortOnStopSignal(): AbortSignal {
  const controller = new AbortController();
  onStopSignal(() => controller.abort(new Error('it was told to stop')));
  return controller.signal;
}

/** Rejects with the signal's reason once it is aborted. */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
