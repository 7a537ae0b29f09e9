/**
 * What the governed path costs: auth, limits, hold, prefix, placement and settlement on the Node home,
 * beside a bare Hono pass-through and the stub worker asked directly. The edge is a process of its
 * own; load and stub share another. Every settlement waits for the disk (synchronous=FULL).
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { operatorOf, seedModel, seedPrice } from '../support/edge/seed.ts';
import { runLoad, startInstantWorker } from './edge-load.ts';
import type { Load } from './edge-load.ts';
import { median, recordResult } from './results.ts';

const rounds = 3;
const secondsPerRun = 2;
const streamEvents = 32;
const secrets = {
  WORKER_TOKEN: 'worker-token-of-the-benchmark',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-benchmark',
};
/** Of the edge process; such as --cpu-prof. */
const nodeFlags = process.argv.slice(2);

const folder = mkdtempSync(join(tmpdir(), 'sift-bench-'));
const worker = await startInstantWorker();
const edge = await start([...nodeFlags, 'edge/node/node.ts'], {
  ...secrets,
  PORT: '0',
  EDGE_DATA: folder,
});
const bare = await start(['test/bench/edge-pass-through.ts', worker.url], {});
try {
  const apiKey = await seed(edge.url);
  const headers = { authorization: `Bearer ${apiKey}` };
  const targets = {
    direct: { url: worker.url, headers: {} },
    bare: { url: bare.url, headers: {} },
    edge: { url: edge.url, headers },
  };
  const whole = { path: '/v1/chat/completions', body: bodyOf({ max_tokens: 1 }) };
  const streams = {
    path: '/v1/chat/completions',
    body: bodyOf({ max_tokens: streamEvents, stream: true }),
  };
  const figures: Record<string, number> = {};
  for (const [name, target] of Object.entries(targets)) {
    const one = await measure({ ...target, ...whole, connections: 1, seconds: secondsPerRun });
    figures[`${name}P50Ms`] = one.p50Ms;
    figures[`${name}P99Ms`] = one.p99Ms;
    const many = await measure({ ...target, ...whole, connections: 32, seconds: secondsPerRun });
    figures[`${name}RequestsPerSecond`] = many.perSecond;
    const stream = await measure({
      ...target,
      ...streams,
      connections: 32,
      seconds: secondsPerRun,
    });
    figures[`${name}StreamsPerSecond`] = stream.perSecond;
  }
  const of = (name: string): number => figures[name] ?? NaN;
  figures['addedP50Ms'] = of('edgeP50Ms') - of('directP50Ms');
  figures['addedOverBareP50Ms'] = of('edgeP50Ms') - of('bareP50Ms');
  figures['requestsOfBare'] = of('edgeRequestsPerSecond') / of('bareRequestsPerSecond');
  figures['streamsOfBare'] = of('edgeStreamsPerSecond') / of('bareStreamsPerSecond');
  for (const [name, value] of Object.entries(figures)) figures[name] = Number(value.toFixed(3));
  console.table(figures);
  recordResult({ benchmark: 'edge', shapes: { rounds, secondsPerRun, streamEvents }, figures });
} finally {
  bare.stop();
  edge.stop();
  worker.close();
  rmSync(folder, { recursive: true });
}

/** After one run to warm up. */
async function measure(load: Load): Promise<{ perSecond: number; p50Ms: number; p99Ms: number }> {
  await runLoad({ ...load, seconds: 1 });
  const runs = [];
  for (let round = 0; round < rounds; round++) runs.push(await runLoad(load));
  return {
    perSecond: median(runs.map((run) => run.perSecond)),
    p50Ms: median(runs.map((run) => run.p50Ms)),
    p99Ms: median(runs.map((run) => run.p99Ms)),
  };
}

function bodyOf(more: object): string {
  const text = 'Tell me of the sea, and of those who sail it. '.repeat(8);
  return JSON.stringify({ model: seedModel, messages: [{ role: 'user', content: text }], ...more });
}

async function seed(url: string): Promise<string> {
  const operator = operatorOf(url, secrets.EDGE_ADMIN_TOKEN);
  await operator.call('POST', '/models', {
    id: seedModel,
    context_length: 65_536,
    revision: 'r1',
    tokenizer: 't1',
  });
  const { inputCached, inputUncached, output } = seedPrice;
  const price = { input_cached: inputCached, input: inputUncached, output };
  await operator.call('POST', '/prices', { model: seedModel, ...price });
  const beat = (): Promise<Response> =>
    fetch(`${url}/internal/workers/heartbeat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secrets.WORKER_TOKEN}` },
      body: JSON.stringify(heartbeatOf({ id: 'stub', url: worker.url, model: seedModel })),
    });
  await beat();
  setInterval(() => void beat().catch(() => {}), 4_000).unref();
  const apiKey = await operator.addTenant('bench', 1e15);
  const unlimited = 1_000_000_000;
  const limits = {
    requests_per_minute: unlimited,
    tokens_per_minute: unlimited,
    concurrent_requests: unlimited,
  };
  await operator.call('PATCH', '/tenants/bench', { limits });
  return apiKey;
}

/** Starts a program of ours that prints where it listens. */
async function start(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<{ url: string; stop(): void }> {
  const child = spawn(process.execPath, [...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.once('exit', () => reject(new Error(`${args.join(' ')} ended`)));
    child.stdout.on('data', (chunk) => {
      const [found] = /http:\/\/127\.0\.0\.1:\d+/.exec(String(chunk)) ?? [];
      if (found !== undefined) resolve(found);
    });
  });
  return { url, stop: () => void child.kill('SIGINT') };
}
