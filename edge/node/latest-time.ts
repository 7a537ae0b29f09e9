/**
 * The latest time that an edge on Node has seen, kept in a file, so that a clock set back is
 * noticed.
 */
import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import type { Log } from '../../infra/log.ts';
import { createKnownTime, parseLatestTime } from '../directory/known-time.ts';
import { replaceFile } from './data-folder.ts';

export interface LatestTime {
  readonly knownTime: ReturnType<typeof createKnownTime>;
  save(): Promise<void>;
}

export function openLatestTime(
  path: string,
  { clock, log }: { readonly clock: { nowMs(): number }; readonly log: Log },
): LatestTime {
  const latestMs = existsSync(path) ? parseLatestTime(readFileSync(path, 'utf8')) : null;
  const knownTime = createKnownTime({ latestMs, log });
  return {
    knownTime,
    async save() {
      knownTime.of(clock.nowMs());
      const latest = knownTime.latestMs();
      assert(latest !== null, 'a time was just seen');
      replaceFile(path, `${latest}\n`);
    },
  };
}
