/**
 * Acknowledged changes survive a SIGKILL at any moment. 10 times here; SIFT_KILLS=1000 for longer.
 */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import type { LedgerEntry } from '../../../edge/tenant/report-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { addKey, sampleCost, settleInput } from '../../support/edge/tenant-samples.ts';

const kills = Number(process.env['SIFT_KILLS'] ?? 10);
const childPath = join(import.meta.dirname, '../../support/edge/tenant-crash-child.ts');

test('every settlement that was acknowledged survives kill -9, and none happens twice', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sift-kill-'));
  const path = join(folder, 'tenant.db');
  await inTenant(path, async (tenant) => {
    await addKey(tenant);
    await tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'grant', note: '' });
    await tenant.credit({ kind: 'topped-up', amountNanoUsd: 1e14, source: 'pay', note: '' });
    const windows = [
      { period: 'day' as const, limitNanoUsd: 1e14 },
      { period: 'ever' as const, limitNanoUsd: 1e14 },
    ];
    await tenant.setBudget('b', { zone: 'UTC', windows });
  });
  let next = startChild();
  try {
    let entries: LedgerEntry[] = [];
    for (let round = 0; round < kills; round++) {
      const child = next;
      if (round + 1 < kills) next = startChild();
      const acknowledged = await killWhileServing(child, `${path} ${round}\n`);
      await inTenant(path, async (tenant) => {
        entries = await grown(tenant, entries);
        expectAcknowledged(acknowledged, entries);
        // It reads the whole ledger, of which each round makes more.
        if (round < 10) expect(await tenant.audit()).toEqual([]);
        for (const { requestId } of await tenant.openHolds(0)) {
          await tenant.settle(settleInput(requestId, { usage: null, outcome: 'failed' }));
        }
        entries = await grown(tenant, entries);
        expect((await tenant.balance()).held).toBe(0);
        for (const { heldNanoUsd } of (await tenant.budget('b'))?.windows ?? []) {
          expect(heldNanoUsd).toBe(0);
        }
      });
    }
    await inTenant(path, async (tenant) => expect(await tenant.audit()).toEqual([]));
    const posted = entries.filter(({ kind }) => kind === 'posted').map((entry) => entry.requestId);
    expect(new Set(posted).size).toBe(posted.length);
    expect(posted.length).toBeGreaterThan(0);
  } finally {
    next.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
});

/** Started ahead of its round: it loads while the one before it is being killed. */
function startChild(): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', childPath]);
}

/** The lines it had acknowledged when it died, the last one perhaps cut short and then left out. */
async function killWhileServing(
  child: ChildProcessWithoutNullStreams,
  input: string,
): Promise<string[]> {
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  child.stdin.on('error', () => {});
  child.stdin.write(input);
  const closed = once(child, 'close');
  await Promise.race([once(child.stdout, 'data'), closed]);
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
  child.kill('SIGKILL');
  await closed;
  expect(errors).toBe('');
  return output.split('\n').slice(0, -1);
}

async function inTenant(path: string, use: (tenant: Tenant) => Promise<void>): Promise<void> {
  const { db, close } = openTenantDb(path);
  await use(createTenant(db, { clock: { nowMs: Date.now } })).finally(close);
}

/** The entries so far and those added since. */
async function grown(tenant: Tenant, before: readonly LedgerEntry[]): Promise<LedgerEntry[]> {
  const entries = [...before];
  for (;;) {
    const page = await tenant.entries({ afterId: entries.at(-1)?.id ?? 0, limit: 1_000 });
    if (page.length === 0) return entries;
    entries.push(...page);
  }
}

function expectAcknowledged(lines: readonly string[], entries: readonly LedgerEntry[]): void {
  const of = (kind: string) =>
    new Map(
      entries.filter((entry) => entry.kind === kind).map((entry) => [entry.requestId, entry]),
    );
  const pending = of('pending');
  const posted = of('posted');
  expect(lines.length).toBeGreaterThan(0);
  const lost = lines.filter((line) => {
    const [kind, requestId, cost] = line.split(' ');
    if (kind === 'held') return !pending.has(requestId ?? '');
    return (
      posted.get(requestId ?? '')?.amountNanoUsd !== -Number(cost) || Number(cost) !== sampleCost
    );
  });
  expect(lost).toEqual([]);
}
