/**
 * Measures the cost of a request inside a tenant's database: admit, place and settle through
 * `createTenant`, alone and with 32 in flight, waiting for the disk at each commit (FULL) or not
 * (NORMAL); looking a prompt up in an index of 200,000 rows; and the chain of a 500 KB prompt.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTenantDb } from '../../db/drivers/better-sqlite3.ts';
import { commitInGroups } from '../../db/group-commit.ts';
import { prefixChain, prefixRoot } from '../../edge/prefix/chain.ts';
import { PrefixIndex } from '../../edge/prefix/prefix-index.ts';
import type { Tenant } from '../../edge/tenant/tenant-contract.ts';
import { createTenant } from '../../edge/tenant/tenant.ts';
import { addKey, admitInput, chainOf, settleInput } from '../support/edge/tenant-samples.ts';
import { median, recordResult } from './results.ts';

const folder = mkdtempSync(join(tmpdir(), 'sift-bench-'));
const rounds = 5;
const pairsPerRound = 1_000;
const chainChunks = 12;

try {
  const figures: Record<string, number> = {};
  for (const synchronous of ['FULL', 'NORMAL'] as const) {
    for (const inFlight of [1, 32]) {
      const path = join(folder, `${synchronous}-${inFlight}.db`);
      const name = `${synchronous.toLowerCase()}${inFlight}`;
      const pairs = await measurePairs({ path, synchronous, inFlight, place: false });
      figures[`pairsPerSecond_${name}`] = pairs.perSecond;
      figures[`pairCpuMicros_${name}`] = pairs.cpuMicros;
      const placed = { path: `${path}-placed`, synchronous, inFlight, place: true };
      const triples = await measurePairs(placed);
      figures[`pairsWithPlacementPerSecond_${name}`] = triples.perSecond;
      figures[`pairWithPlacementCpuMicros_${name}`] = triples.cpuMicros;
    }
  }
  Object.assign(figures, indexFigures(join(folder, 'index.db')), chainFigures());
  console.table(figures);
  recordResult({
    benchmark: 'tenant',
    shapes: { rounds, pairsPerRound, chainChunks, indexRows: 200_000, promptKb: 500 },
    figures,
  });
} finally {
  rmSync(folder, { recursive: true });
}

/** CPU time beside the rate: it holds still where others use the machine and its disk too. */
async function measurePairs(run: {
  readonly path: string;
  readonly synchronous: 'FULL' | 'NORMAL';
  readonly inFlight: number;
  readonly place: boolean;
}): Promise<{ perSecond: number; cpuMicros: number }> {
  const { db, close } = openTenantDb(run.path, { synchronous: run.synchronous });
  const committer = commitInGroups(db, setImmediate);
  const tenant = createTenant(db, { clock: { nowMs: Date.now }, committer });
  await addKey(tenant, 'key-1', { requestsPerMinute: 1e9, tokensPerMinute: 1e9 });
  await tenant.credit({ kind: 'topped-up', amountNanoUsd: 1e14, source: 'bench', note: '' });
  const perSecond: number[] = [];
  const cpuMicros: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    const cpu = process.cpuUsage();
    const lanes = Array.from({ length: run.inFlight }, async (_, lane) => {
      for (let count = lane; count < pairsPerRound; count += run.inFlight) {
        await serve(tenant, {
          requestId: `r${round}-${count}`,
          name: count % 50,
          place: run.place,
        });
      }
    });
    await Promise.all(lanes);
    // The first round warms up.
    if (round === 0) continue;
    perSecond.push((pairsPerRound / (performance.now() - start)) * 1_000);
    const { user, system } = process.cpuUsage(cpu);
    cpuMicros.push((user + system) / pairsPerRound);
  }
  const problems = await tenant.audit();
  if (problems.length > 0) throw new Error(problems.join('\n'));
  close();
  return { perSecond: Math.round(median(perSecond)), cpuMicros: Math.round(median(cpuMicros)) };
}

async function serve(
  tenant: Tenant,
  request: { readonly requestId: string; readonly name: number; readonly place: boolean },
): Promise<void> {
  const { requestId } = request;
  const chain = chainOf(request.name, chainChunks);
  await tenant.admit(admitInput(requestId, { prefixChain: chain }));
  const holder = { worker: `w${request.name % 8}`, epoch: 1 };
  if (request.place) await tenant.placed({ requestId, ...holder, workerUrl: 'http://w', chain });
  await tenant.settle(settleInput(requestId, { ...holder, confirmedChain: chain }));
}

/**
 * 200,000 rows on 16 workers; chains of 64 keys (a 500 KB prompt) and of 12, half of them known.
 */
function indexFigures(path: string): Record<string, number> {
  const { db, close } = openTenantDb(path, { synchronous: 'NORMAL' });
  const index = new PrefixIndex(db);
  const nowMs = Date.now();
  for (let name = 0; index.rows() < 200_000; name += 100) {
    db.transaction(() => {
      for (let each = name; each < name + 100; each++) {
        const chain = chainOf(Math.imul(each, 2_654_435_761) >>> 0, 64);
        index.expect({ worker: `w${each % 16}`, epoch: 1 }, chain, nowMs);
      }
    });
  }
  const figures: Record<string, number> = {};
  for (const keys of [12, 64]) {
    const times: number[] = [];
    for (let count = 0; count < 5_000; count++) {
      const chain = chainOf(Math.imul(count % 6_000, 2_654_435_761) >>> 0, keys);
      const start = performance.now();
      index.lookup(chain, nowMs);
      times.push(performance.now() - start);
    }
    const sorted = times.toSorted((a, b) => a - b);
    figures[`lookupP50Ms_${keys}keys`] = round3(sorted[Math.floor(sorted.length * 0.5)] ?? 0);
    figures[`lookupP99Ms_${keys}keys`] = round3(sorted[Math.floor(sorted.length * 0.99)] ?? 0);
  }
  close();
  return figures;
}

/** Parsing is not counted: the request is parsed whether or not it is hashed. */
function chainFigures(): Record<string, number> {
  const fields = { tenant: 't', scope: '', model: 'm', revision: 'r', tokenizer: 'k' };
  const root = prefixRoot('secret', fields);
  const text = 'The quick brown fox "jumps"\nover the lazy dog. '.repeat(1 + 10_000 / 47);
  const parts = Array.from({ length: 50 }, (_, index) => ({
    kind: 'message' as const,
    value: { role: index % 2 === 0 ? 'user' : 'assistant', content: `${index} ${text}` },
  }));
  const times: number[] = [];
  for (let count = 0; count < 200; count++) {
    const start = performance.now();
    prefixChain(parts, root);
    times.push(performance.now() - start);
  }
  return { chain500KbMs: round3(median(times)), chainKeys: prefixChain(parts, root).length };
}

function round3(ms: number): number {
  return Math.round(ms * 1_000) / 1_000;
}
