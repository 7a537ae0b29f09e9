/** A whole system of its own, on free ports and in a folder that is gone afterwards. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readNodeSettings } from '../edge/settings/read-settings.ts';
import { startEdge } from '../edge/node/node.ts';
import type { BookReader } from './book/read-book.ts';
import { environment } from './settings.ts';
import { openDemo, startTinyWorker } from './system.ts';

export interface OwnSystem extends AsyncDisposable {
  readonly reader: BookReader;
  readonly backend: 'cpu' | 'cuda';
}

/** @param defaults settings for which the environment has no value of its own. */
export async function openOwnSystem(
  defaults: Readonly<Record<string, string>>,
): Promise<OwnSystem> {
  await using closers = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'sift-demo-'));
  closers.defer(() => rmSync(folder, { recursive: true }));
  const env = {
    EDGE_LOG_LEVEL: 'warn',
    EDGE_DATA: folder,
    PORT: '0',
    WORKER_PORT: '0',
    ...defaults,
    ...environment(),
  };
  const settings = readNodeSettings(env);
  const edge = await startEdge({ settings });
  closers.defer(() => edge.close());
  const { adminToken, workerToken } = edge.services.settings;
  const dataFolder = resolve(settings.dataFolder);
  const front = { url: edge.url, close: edge.close, adminToken, workerToken, dataFolder };
  const worker = await startTinyWorker(front, env);
  closers.defer(() => worker.close());
  const reader = await openDemo(front, worker);
  const kept = closers.move();
  return {
    reader,
    backend: worker.backend,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
