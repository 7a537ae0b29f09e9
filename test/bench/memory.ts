/**
 * Shows if the edge's memory grows with the requests that it has answered: 50,000 of a mix (whole,
 * streamed, refused, under idempotency keys, with known prefixes, of clients that leave) by several
 * tenants, on a worker that answers at once. Memory is looked at after a forced collection each ten
 * thousand requests; what the first of them fill, caches and heaps, counts for nothing.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { operatorOf, seedModel, seedPrice } from '../support/edge/seed.ts';
import type { Operator } from '../support/edge/seed.ts';
import { scriptArgs } from '../support/npm-script.ts';
import { processUsage } from '../support/process-usage.ts';
import { startProgram } from '../support/started-program.ts';
import type { StartedProgram } from '../support/started-program.ts';
import { startInstantWorker } from './edge-load.ts';
import { askNth } from './memory-client.ts';
import type { Keys } from './memory-client.ts';
import { recordResult } from './results.ts';

const requestsPerLook = Number(process.argv[2] ?? 10_000);
const looks = 5;
const connections = 16;
const richTenants = 5;
/** The bound on growth from the first look to the last. */
const growthMBMax = 10;
const probeMsMax = 30_000;
const unlimited = 1_000_000_000;

const bytes = z.number().transform((value) => Number((value / 1e6).toFixed(1)));
const probeSchema = z.object({
  memoryProbe: z.object({ rss: bytes, heapUsed: bytes, heapTotal: bytes, external: bytes }),
});
const secrets = {
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-benchmark',
  WORKER_TOKEN: 'worker-token-of-the-benchmark',
};
const folder = mkdtempSync(join(tmpdir(), 'sift-memory-'));
const worker = await startInstantWorker();
const edge = await startProgram({
  args: ['--expose-gc', '--import', './test/bench/memory-probe.ts', ...scriptArgs('edge')],
  env: { ...secrets, PORT: '0', EDGE_DATA: folder },
});
try {
  const keys = await seed(operatorOf(edge.url, secrets.EDGE_ADMIN_TOKEN));
  const seen: Memory[] = [];
  const beganMs = performance.now();
  for (let look = 0; look < looks; look++) {
    const from = look * requestsPerLook;
    await askAll(from, from + requestsPerLook, keys);
    const memory = await lookAt(edge);
    seen.push(memory);
    console.log(`${from + requestsPerLook} requests: ${JSON.stringify(memory)}`);
  }
  report(seen, performance.now() - beganMs);
} finally {
  await edge.stop();
  worker.close();
  rmSync(folder, { recursive: true, force: true });
}
process.exit();

function report(seen: readonly Memory[], elapsedMs: number): void {
  const [first] = seen;
  const last = seen.at(-1);
  if (first === undefined || last === undefined) throw new Error('memory was not looked at');
  const grownMB = last.residentMB - first.residentMB;
  const residents = seen.map(({ residentMB }, at) => [`residentMBAt${at + 1}`, residentMB]);
  const figures = {
    ...Object.fromEntries(residents),
    grownMB: Number(grownMB.toFixed(1)),
    grownBar: grownMB < growthMBMax ? 'met' : 'not met',
    heapUsedGrownMB: Number((last.heapUsedMB - first.heapUsedMB).toFixed(1)),
    requestsPerSecond: Math.round((looks * requestsPerLook * 1_000) / elapsedMs),
    load1m: Number((loadavg()[0] ?? Number.NaN).toFixed(1)),
  };
  console.table(figures);
  const shapes = { requestsPerLook, looks, connections, richTenants };
  recordResult({ benchmark: 'memory', shapes, figures });
}

async function askAll(from: number, to: number, keys: Keys): Promise<void> {
  let next = from;
  const askOneByOne = async (): Promise<void> => {
    while (next < to) await askNth(edge.url, next++, keys);
  };
  await Promise.all(Array.from({ length: connections }, askOneByOne));
}

interface Memory {
  readonly residentMB: number;
  readonly heapUsedMB: number;
  readonly heapTotalMB: number;
  readonly externalMB: number;
  readonly openFiles: number;
}

async function lookAt(program: StartedProgram): Promise<Memory> {
  const mark = program.mark();
  process.kill(program.pid, 'SIGUSR2');
  const untilMs = performance.now() + probeMsMax;
  for (;;) {
    const [line] = /^\{"memoryProbe":.*\}\}$/m.exec(program.said(mark)) ?? [];
    if (line !== undefined) {
      const { memoryProbe } = probeSchema.parse(JSON.parse(line));
      const { rss, heapUsed, heapTotal, external } = memoryProbe;
      return {
        residentMB: rss,
        heapUsedMB: heapUsed,
        heapTotalMB: heapTotal,
        externalMB: external,
        openFiles: processUsage(program.pid).openFiles,
      };
    }
    if (performance.now() > untilMs) throw new Error('the edge does not tell of its memory');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function seed(operator: Operator): Promise<Keys> {
  const model = { context_length: 65_536, revision: 'r1', tokenizer: 't1' };
  await operator.call('POST', '/models', { id: seedModel, ...model });
  const { inputCached, inputUncached, output } = seedPrice;
  const price = { input_cached: inputCached, input: inputUncached, output };
  await operator.call('POST', '/prices', { model: seedModel, ...price });
  await beat();
  setInterval(() => void beat().catch(() => {}), 4_000).unref();
  const limitTo = (id: string, requests: number): Promise<unknown> =>
    operator.call('PATCH', `/tenants/${id}`, {
      limits: {
        requests_per_minute: requests,
        tokens_per_minute: unlimited,
        concurrent_requests: unlimited,
      },
    });
  const rich: string[] = [];
  for (let each = 0; each < richTenants; each++) {
    rich.push(await operator.addTenant(`rich-${each}`, 1e15));
    await limitTo(`rich-${each}`, unlimited);
  }
  const limited = await operator.addTenant('limited', 1e15);
  await limitTo('limited', 1);
  return { rich, poor: await operator.addTenant('poor', 0), limited };
}

async function beat(): Promise<void> {
  const response = await fetch(`${edge.url}/internal/workers/heartbeat`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secrets.WORKER_TOKEN}` },
    body: JSON.stringify(heartbeatOf({ id: 'stub', url: worker.url, model: seedModel })),
  });
  if (!response.ok) throw new Error(`heartbeat: ${response.status} ${await response.text()}`);
}
