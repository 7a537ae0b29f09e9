/**
 * The power is cut at every write: of a tenant's log the disk has what was synced, and of the rest
 * any beginning. Whatever it has, every answer that a client saw is billed once, at the cost that
 * it stated, after the edge has come back and asked the worker's journal.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { LogSync } from '../../../db/drivers/log-sync.ts';
import { reconcileHolds } from '../../../edge/reconcile/reconcile-holds.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { runtimeSecrets, startRuntimeSystem } from '../../support/edge/runtime-system.ts';

/** So slow that an answer that does not wait for it is there before. */
const syncMs = 25;
const logHeadBytes = 32;
const frameHeadBytes = 24;
const tornBytes = 100;
const hourMs = 3_600_000;

interface Seen {
  readonly requestId: string;
  readonly costNanoUsd: number;
  /** Bytes of the log that were certainly on the disk then. */
  readonly syncedBytes: number;
}

test('an answer that a client saw is billed once, wherever the log was cut', async () => {
  const system = await startRuntimeSystem();
  const path = join(system.folder, 'tenants/acme.db');
  const logBytes = (): number => statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  const before = readFileSync(path);
  let syncedBytes = logBytes();
  const sync = LogSync.prototype.sync;
  vi.spyOn(LogSync.prototype, 'sync').mockImplementation(async function slowly(this: LogSync) {
    const written = logBytes();
    await sync.call(this);
    await sleep(syncMs);
    syncedBytes = Math.max(syncedBytes, written);
  });
  onTestFinished(() => void vi.restoreAllMocks());

  const seen: Seen[] = [];
  const ask = async (stream: boolean, key: string | null): Promise<void> => {
    const more = stream ? { stream, stream_options: { include_usage: true } } : {};
    const headers = key === null ? {} : { 'idempotency-key': key };
    const answer = await system.ask('acme', more, headers);
    const text = await answer.text();
    const [, cost] = /"cost_nano_usd":(\d+)/.exec(text) ?? [];
    const requestId = answer.headers.get('x-request-id') ?? '';
    seen.push({ requestId, costNanoUsd: Number(cost), syncedBytes });
  };
  for (const [round, pauseMs] of [0, 1, 0].entries()) {
    system.stub.script = { ...plainScript, pauseMs };
    await Promise.all([
      ask(false, null),
      ask(true, null),
      ask(false, `whole-${round}`),
      ask(true, `stream-${round}`),
    ]);
    await ask(false, null);
  }
  const log = readFileSync(`${path}-wal`);
  expect(readFileSync(path)).toEqual(before);
  expect(seen.map(({ costNanoUsd }) => costNanoUsd)).not.toContain(Number.NaN);

  let unbilled = 0;
  for (const bytes of cuts(log)) {
    const owed = seen.filter((each) => each.syncedBytes <= bytes);
    unbilled += await comeBack({ database: before, log: log.subarray(0, bytes), owed });
  }
  // Some settlements were lost with the power, or the test says nothing of those.
  expect(unbilled).toBeGreaterThan(0);
});

/** The end of every commit, and the middle of the write that was its last. */
function cuts(log: Uint8Array): number[] {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  const frameBytes = frameHeadBytes + view.getUint32(8);
  const ends: number[] = [];
  for (let start = logHeadBytes; start + frameBytes <= log.length; start += frameBytes) {
    const isCommit = view.getUint32(start + 4) > 0;
    if (isCommit) ends.push(start + frameBytes - tornBytes, start + frameBytes);
  }
  return ends;
}

/** @returns how many of the answers had no settlement before the journal was asked. */
async function comeBack(disk: {
  readonly database: Uint8Array;
  readonly log: Uint8Array;
  readonly owed: readonly Seen[];
}): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'sift-cut-'));
  const path = join(folder, 'tenant.db');
  writeFileSync(path, disk.database);
  writeFileSync(`${path}-wal`, disk.log);
  const { db, close } = openTenantDb(path);
  try {
    const clock = { nowMs: () => Date.now() + 2 * hourMs };
    const tenant = createTenant(db, { clock });
    const open = new Set((await tenant.openHolds(0)).map(({ requestId }) => requestId));
    const unbilled = disk.owed.filter(({ requestId }) => open.has(requestId)).length;
    const workerToken = runtimeSecrets.WORKER_TOKEN;
    await reconcileHolds({ tenant, clock, fetch, workerToken, log: () => {} }, 0);
    expect(await tenant.audit()).toEqual([]);
    expect(await tenant.openHolds(0)).toEqual([]);
    const entries = await tenant.entries({ afterId: 0, limit: 1_000 });
    const billed = (requestId: string): number[] =>
      entries
        .filter((entry) => entry.requestId === requestId && entry.kind !== 'pending')
        .map(({ amountNanoUsd }) => 0 - amountNanoUsd);
    for (const { requestId, costNanoUsd } of disk.owed) {
      expect({ requestId, billed: billed(requestId) }).toEqual({
        requestId,
        billed: [costNanoUsd],
      });
    }
    return unbilled;
  } finally {
    close();
    rmSync(folder, { recursive: true });
  }
}
