/** A whole worker in this process: the tiny model on the cpu backend, behind a real port. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { startWorker } from '../../../gpu-worker/main.ts';
import type { RunningWorker } from '../../../gpu-worker/main.ts';
import { usageRecordSchema } from '../../../gpu-worker/protocol/usage.ts';
import type { UsageRecord } from '../../../gpu-worker/protocol/usage.ts';
import { settingsOfArgs } from './worker-settings.ts';

const tiny = fileURLToPath(new URL('../../../gpu-worker/models/tiny', import.meta.url));

export interface TinyWorker extends AsyncDisposable {
  readonly worker: RunningWorker;
  post(path: string, body: object, init?: { id?: string; signal?: AbortSignal }): Promise<Response>;
  /** The journal's record of the request; null if it was never seen. */
  journal(id: string): Promise<UsageRecord | null>;
}

export async function startTinyWorker(
  flags: readonly string[] = [],
  token = 'a-worker-token-of-length',
): Promise<TinyWorker> {
  const data = await mkdtemp(join(tmpdir(), 'sift-worker-'));
  const own = ['--model', tiny, '--model-id', 'tiny', '--port', '0', '--data', data];
  const settings = settingsOfArgs([...own, '--threads', '1', ...flags], { WORKER_TOKEN: token });
  const worker = await startWorker(settings, pino({ level: 'silent' }));
  const authorization = `Bearer ${token}`;
  return {
    worker,
    post: (path, body, { id, signal } = {}) =>
      fetch(worker.url + path, {
        method: 'POST',
        headers: {
          authorization,
          'content-type': 'application/json',
          ...(id !== undefined && { 'x-request-id': id }),
        },
        body: JSON.stringify({ model: 'tiny', ...body }),
        ...(signal && { signal }),
      }),
    async journal(id) {
      const path = `/v1/requests/${id}/usage`;
      const response = await fetch(worker.url + path, { headers: { authorization } });
      return response.status === 404 ? null : usageRecordSchema.parse(await response.json());
    },
    async [Symbol.asyncDispose]() {
      await worker.close({ graceMs: 0 });
      await rm(data, { recursive: true });
    },
  };
}
