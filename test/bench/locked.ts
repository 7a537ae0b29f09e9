/**
 * Measures the other tenants' latency while another process holds the lock of one tenant's
 * database, as a backup or a report does, and that tenant's clients ask on. The bar is 100 ms at
 * the 99th percentile.
 */
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { lockFromOutside } from '../support/edge/lock-file.ts';
import { seedModel } from '../support/edge/seed.ts';
import { startInstantWorker } from './edge-load.ts';
import { median, recordResult } from './results.ts';
import { startSeededEdge } from './seeded-edge.ts';

const rounds = 3;
const seconds = 5;
const otherTenants = 4;
const everyMs = 200;
const lockedClients = 16;
const path = '/v1/chat/completions';
const messages = [{ role: 'user', content: 'Tell me of the sea. '.repeat(8) }];
const body = JSON.stringify({ model: seedModel, messages, max_tokens: 1 });

interface Times {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const worker = await startInstantWorker();
const edge = await startSeededEdge({ workerUrl: worker.url });
try {
  const lockedKey = await edge.addTenant('locked');
  const keys: string[] = [];
  for (let at = 0; at < otherTenants; at++) keys.push(await edge.addTenant(`other-${at}`));
  await othersTimes(keys);

  const alone: Times[] = [];
  const beside: Times[] = [];
  const refusals = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    alone.push(await othersTimes(keys));
    const held = await lockFromOutside(join(edge.folder, 'tenants/locked.db'));
    const enough = new AbortController();
    const clients = Array.from({ length: lockedClients }, () =>
      askOn(lockedKey, { enough: enough.signal, refusals }),
    );
    beside.push(await othersTimes(keys));
    enough.abort();
    await Promise.all(clients);
    await held.release();
  }
  const of = (times: readonly Times[], name: keyof Times): number =>
    Number(median(times.map((each) => each[name])).toFixed(2));
  const figures = {
    aloneP50Ms: of(alone, 'p50Ms'),
    aloneP99Ms: of(alone, 'p99Ms'),
    besideLockP50Ms: of(beside, 'p50Ms'),
    besideLockP99Ms: of(beside, 'p99Ms'),
    besideLockP99WorstMs: Number(Math.max(...beside.map((each) => each.p99Ms)).toFixed(2)),
    lockedWereTold: [...refusals].map(([told, times]) => `${times} x ${told}`).join(', '),
    load1m: Number((loadavg()[0] ?? Number.NaN).toFixed(1)),
  };
  console.table(figures);
  const shapes = { rounds, seconds, otherTenants, everyMs, lockedClients };
  recordResult({ benchmark: 'locked', shapes, figures });
} finally {
  await edge.stop();
  worker.close();
}

/** Each of the other tenants asks at an even pace, whether or not it has been answered. */
async function othersTimes(keys: readonly string[]): Promise<Times> {
  const count = (seconds * 1_000) / everyMs;
  const asked = keys.map(async (key) => {
    const answers: Promise<number>[] = [];
    for (let at = 0; at < count; at++) {
      answers.push(millisecondsOf(key));
      await sleep(everyMs);
    }
    return Promise.all(answers);
  });
  const sorted = (await Promise.all(asked)).flat().toSorted((x, y) => x - y);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function millisecondsOf(key: string): Promise<number> {
  const startedMs = performance.now();
  const answer = await ask(key);
  if (answer.status !== 200) throw new Error(`another tenant was answered ${answer.status}`);
  return performance.now() - startedMs;
}

async function ask(key: string): Promise<Response> {
  const answer = await fetch(edge.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body,
  });
  await answer.arrayBuffer();
  return answer;
}

/** Asks again as soon as it is told to, until it is enough; counts what it was told. */
async function askOn(
  key: string,
  options: { readonly enough: AbortSignal; readonly refusals: Map<string, number> },
): Promise<void> {
  const { enough, refusals } = options;
  while (!enough.aborted) {
    const answer = await ask(key);
    const retryAfter = answer.headers.get('retry-after');
    const told = `${answer.status}, Retry-After ${retryAfter ?? 'missing'}`;
    refusals.set(told, (refusals.get(told) ?? 0) + 1);
    await sleep(Number(retryAfter ?? 0) * 1_000);
  }
}
