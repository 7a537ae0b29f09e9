/**
 * Measures the edge on Node on 1, 2 and more threads (BENCH_THREADS=1,2,4), which take turns in
 * each round: answers a second, their processor time, the time of one answer alone, and memory. The
 * load runs on threads of its own, and so does the stub worker, so that neither is what is
 * measured. With BENCH_SYSTEM_CPUS=0,1 the edges run on these CPUs alone; taskset(1) keeps the
 * benchmark itself off them. Tenants are many, because each belongs to one thread.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { at } from '../../gpu-worker/at.ts';
import { seedModel } from '../support/edge/seed.ts';
import type { Load, LoadTimes } from './edge-load.ts';
import type { FarSide } from './edge-load-thread.ts';
import { cpuUsOf } from './process-cpu.ts';
import { median, recordResult } from './results.ts';
import { startSeededEdge } from './seeded-edge.ts';
import type { SeededEdge } from './seeded-edge.ts';

const rounds = 5;
const secondsPerRun = Number(process.env['BENCH_SECONDS'] ?? 2);
const cpus = process.env['BENCH_SYSTEM_CPUS'];
const threadCounts = (process.env['BENCH_THREADS'] ?? '1,2').split(',').map(Number);
/** Threads of Node's own in which files are synced; 4 unless given. */
const diskThreads = process.env['BENCH_DISK_THREADS'];
const tenants = 16;
const connections = 64;
/** Each writes some thousand requests a second. */
const loadThreads = Math.max(2, Math.min(tenants, availableParallelism() - 3));
const streamEvents = 32;
const path = '/v1/chat/completions';

const kinds = {
  one: { connections: 1, body: bodyOf({ max_tokens: 1 }) },
  whole: { connections, body: bodyOf({ max_tokens: 1 }) },
  streams: { connections, body: bodyOf({ max_tokens: streamEvents, stream: true }) },
} as const;
type Kind = keyof typeof kinds;

interface Measured {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuUs: number;
}

interface Target {
  readonly threads: number;
  readonly edge: SeededEdge;
  readonly keys: readonly string[];
  readonly runs: Map<Kind, Measured[]>;
}

const stub = startFarSide({ kind: 'stub' });
const { url: workerUrl } = (await answerOf(stub)) as { url: string };
const targets: Target[] = [];
try {
  for (const threads of threadCounts) {
    const settings = {
      EDGE_THREADS: String(threads),
      ...(diskThreads !== undefined && { UV_THREADPOOL_SIZE: diskThreads }),
    };
    const edge = await startSeededEdge({ workerUrl, settings, cpus });
    const keys: string[] = [];
    for (let tenant = 0; tenant < tenants; tenant++) {
      keys.push(await edge.addTenant(`bench-${tenant}`));
    }
    targets.push({ threads, edge, keys, runs: new Map() });
  }
  const names = Object.keys(kinds) as Kind[];
  for (const target of targets) for (const kind of names) await measure(target, kind);
  for (let round = 0; round < rounds; round++) {
    for (const kind of names) {
      for (const target of targets) {
        const run = await measure(target, kind);
        target.runs.set(kind, [...(target.runs.get(kind) ?? []), run]);
      }
    }
  }
  const figures = Object.assign({}, ...targets.map(figuresOf));
  console.table(figures);
  const shapes = {
    rounds,
    secondsPerRun,
    tenants,
    connections,
    loadThreads,
    streamEvents,
    cpus,
    diskThreads,
  };
  recordResult({ benchmark: 'edge-threads', shapes, figures });
} finally {
  for (const { edge } of targets) await edge.stop();
  await stub.terminate();
}

/** Each load thread has some of the connections, and each connection one tenant. */
async function measure({ edge, keys }: Target, kind: Kind): Promise<Measured> {
  const load = kinds[kind];
  const loads: Load[][] = Array.from({ length: Math.min(loadThreads, load.connections) }, () => []);
  const clients = Math.min(tenants, load.connections);
  for (let client = 0; client < clients; client++) {
    at(loads, client % loads.length).push({
      url: edge.url,
      path,
      headers: { authorization: `Bearer ${at(keys, client)}` },
      body: load.body,
      connections: load.connections / clients,
      seconds: secondsPerRun,
    });
  }
  const before = cpuUsOf(edge.pid);
  const times = (await Promise.all(loads.map(runOnThread))).flat();
  const used = cpuUsOf(edge.pid) - before;
  const answers = times.reduce((sum, each) => sum + each.answers, 0);
  return {
    perSecond: times.reduce((sum, each) => sum + each.perSecond, 0),
    p50Ms: median(times.map((each) => each.p50Ms)),
    p99Ms: median(times.map((each) => each.p99Ms)),
    cpuUs: used / answers,
  };
}

async function runOnThread(loads: readonly Load[]): Promise<readonly LoadTimes[]> {
  const thread = startFarSide({ kind: 'load', loads });
  // The thread answers with the times of each load.
  const times = (await answerOf(thread)) as readonly LoadTimes[];
  await thread.terminate();
  return times;
}

function startFarSide(side: FarSide): Worker {
  return new Worker(new URL('./edge-load-thread.ts', import.meta.url), { workerData: side });
}

function answerOf(thread: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
}

function figuresOf({ threads, edge, runs }: Target): Record<string, number> {
  const of = (kind: Kind): readonly Measured[] => runs.get(kind) ?? [];
  const middle = (kind: Kind, field: keyof Measured): number =>
    rounded(median(of(kind).map((run) => run[field])));
  const name = `threads${threads}`;
  const figures: Record<string, number> = {
    [`${name}P50Ms`]: middle('one', 'p50Ms'),
    [`${name}RequestsPerSecond`]: middle('whole', 'perSecond'),
    [`${name}RequestP99Ms`]: middle('whole', 'p99Ms'),
    [`${name}StreamsPerSecond`]: middle('streams', 'perSecond'),
    [`${name}CpuUsPerRequest`]: middle('whole', 'cpuUs'),
    [`${name}CpuUsPerStream`]: middle('streams', 'cpuUs'),
    [`${name}ResidentMiB`]: residentMiB(edge.pid),
  };
  const [first] = targets;
  if (first === undefined || first.threads === threads) return figures;
  for (const kind of ['whole', 'streams'] as const) {
    const alone = first.runs.get(kind) ?? [];
    // Each round beside itself: what else the machine did then slowed both down.
    const ratios = of(kind).map((run, round) => run.perSecond / at(alone, round).perSecond);
    figures[`${kind}Of${first.threads}_${name}`] = rounded(median(ratios));
  }
  return figures;
}

function residentMiB(pid: number): number {
  const [, kib = 'NaN'] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Math.round(Number(kib) / 1_024);
}

function rounded(value: number): number {
  return Number(value.toFixed(3));
}

function bodyOf(more: object): string {
  const text = 'Tell me of the sea, and of those who sail it. '.repeat(8);
  return JSON.stringify({ model: seedModel, messages: [{ role: 'user', content: text }], ...more });
}
