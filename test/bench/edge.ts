/**
 * Measures the cost of the governed path: auth, limits, hold, prefix, placement and settlement on
 * Node, beside a bare Hono pass-through and the stub worker asked directly. The edge is a process
 * of its own; load and stub share another. Every settlement waits for the disk (synchronous=FULL).
 */
import { seedModel } from '../support/edge/seed.ts';
import { runLoad, startInstantWorker } from './edge-load.ts';
import type { Load } from './edge-load.ts';
import { median, recordResult } from './results.ts';
import { startProgram, startSeededEdge } from './seeded-edge.ts';

const rounds = 3;
const secondsPerRun = 2;
const streamEvents = 32;
/** Flags of Node for the edge's process, such as --cpu-prof. */
const nodeFlags = process.argv.slice(2);

const worker = await startInstantWorker();
const edge = await startSeededEdge({ workerUrl: worker.url, nodeFlags });
const bare = await startProgram(['test/bench/edge-pass-through.ts', worker.url], {});
try {
  const apiKey = await edge.addTenant('bench');
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
  await bare.stop();
  await edge.stop();
  worker.close();
}

/** Measures a load after one run to warm up. */
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
