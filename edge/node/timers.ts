/** Work that the edge on Node repeats for as long as it runs. */
import type { Log } from '../../infra/log.ts';
import { messageOf } from './data-folder.ts';

export interface Timer {
  /** Waits for the work that is under way. */
  stop(): Promise<void>;
}

/** Runs the work now and again after each pause; its failures are logged and never end it. */
export function repeat(
  work: () => Promise<void>,
  options: { readonly everyMs: number; readonly log: Log },
): Timer {
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  const run = async (): Promise<void> => {
    try {
      await work();
    } catch (error) {
      options.log('warn', 'timer-failed', { reason: messageOf(error) });
    }
    if (!stopped) timer = setTimeout(() => (running = run()), options.everyMs);
  };
  let running = run();
  return {
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
