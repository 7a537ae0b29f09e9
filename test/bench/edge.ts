/**
 * Measures the cost of the governed path: auth, limits, hold, prefix, placement and settlement on
 * Node, beside a bare Hono pass-through, Portkey's gateway where BENCH_PORTKEY names the folder of
 * its package, and the stub worker asked directly. They take turns in each round. Each is a process
 * of its own; load and stub share another. With BENCH_SYSTEM_CPUS=0,1 the measured ones run on
 * these two alone. Flags for Node, such as --cpu-prof, go to the edge.
 */
import { at } from '../../gpu-worker/at.ts';
import { seedModel } from '../support/edge/seed.ts';
import { startProgram } from '../support/started-program.ts';
import { longestWaitBeside, runLoad, startInstantWorker } from './edge-load.ts';
import type { LoadTimes } from './edge-load.ts';
import { cpuUsOf } from './process-cpu.ts';
import { startPortkey } from './portkey.ts';
import { median, recordResult } from './results.ts';
import { startSeededEdge } from './seeded-edge.ts';

const rounds = 5;
const secondsPerRun = Number(process.env['BENCH_SECONDS'] ?? 2);
const streamEvents = 32;
const connections = 32;
const longStreamEvents = 10_000;
/** A round in which the pass-through was so far off its median tells of the machine. */
const noisyShare = 0.25;
const path = '/v1/chat/completions';
const nodeFlags = process.argv.slice(2);
const cpus = process.env['BENCH_SYSTEM_CPUS'];

interface Target {
  readonly name: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** null: it shares the process with the load. */
  readonly pid: number | null;
}

interface Run extends LoadTimes {
  readonly cpuUs: number;
}

const loads = {
  one: { connections: 1, body: bodyOf({ max_tokens: 1 }) },
  whole: { connections, body: bodyOf({ max_tokens: 1 }) },
  streams: { connections, body: bodyOf({ max_tokens: streamEvents, stream: true }) },
} as const;
type Kind = keyof typeof loads;
const kinds: readonly Kind[] = ['one', 'whole', 'streams'];

const worker = await startInstantWorker();
const edge = await startSeededEdge({ workerUrl: worker.url, nodeFlags, cpus });
const bare = await startProgram({ args: ['test/bench/edge-pass-through.ts', worker.url], cpus });
const portkey = await startPortkey({ workerUrl: worker.url, cpus });
try {
  const headers = { authorization: `Bearer ${await edge.addTenant('bench')}` };
  const direct: Target = { name: 'direct', url: worker.url, headers: {}, pid: null };
  const governed: Target = { name: 'edge', url: edge.url, headers, pid: edge.pid };
  const others: readonly Target[] = [
    { name: 'bare', url: bare.url, headers: {}, pid: bare.pid },
    ...(portkey === null ? [] : [{ name: 'portkey', ...portkey }]),
  ];
  const targets = [direct, ...others, governed];
  if (portkey === null) console.log('BENCH_PORTKEY names no folder: Portkey is left out');
  for (const target of targets) for (const kind of kinds) await measure(target, kind);
  const runs = new Map<string, Run[]>();
  for (let round = 0; round < rounds; round++) {
    for (const kind of kinds) {
      for (const target of targets) {
        const key = `${target.name} ${kind}`;
        runs.set(key, [...(runs.get(key) ?? []), await measure(target, kind)]);
      }
    }
  }
  const of = (name: string, kind: Kind): readonly Run[] => runs.get(`${name} ${kind}`) ?? [];
  const figures = figuresOf(targets, of);
  figures['noisyRounds'] = noisyRounds(of).join(' ') || 'none';
  const half = {
    ...loads.whole,
    path,
    seconds: 2 * secondsPerRun,
    perSecond: median(of('edge', 'whole').map((run) => run.perSecond)) / 2,
  };
  const edgeAtHalf = await runLoad({ ...governed, ...half });
  const directAtHalf = await runLoad({ ...direct, ...half });
  figures['addedP99AtHalfRateMs'] = rounded(edgeAtHalf.p99Ms - directAtHalf.p99Ms);
  figures['longestWaitBesideLongStreamMs'] = rounded(
    await longestWaitBeside({
      ...governed,
      path,
      long: bodyOf({ max_tokens: longStreamEvents, stream: true }),
      short: bodyOf({ max_tokens: 1, stream: true }),
      seconds: secondsPerRun,
    }),
  );
  console.table(figures);
  const shapes = { rounds, secondsPerRun, streamEvents, connections, longStreamEvents, cpus };
  recordResult({ benchmark: 'edge', shapes, figures });
} finally {
  await portkey?.stop();
  await bare.stop();
  await edge.stop();
  worker.close();
}

async function measure({ pid, ...target }: Target, kind: Kind): Promise<Run> {
  const before = pid === null ? Number.NaN : cpuUsOf(pid);
  const run = await runLoad({ ...target, ...loads[kind], path, seconds: secondsPerRun });
  const used = pid === null ? Number.NaN : cpuUsOf(pid) - before;
  return { ...run, cpuUs: used / run.answers };
}

function figuresOf(
  targets: readonly Target[],
  of: (name: string, kind: Kind) => readonly Run[],
): Record<string, number | string> {
  const figures: Record<string, number | string> = {};
  const middle = (name: string, kind: Kind, field: keyof Run): number =>
    rounded(median(of(name, kind).map((run) => run[field])));
  for (const { name, pid } of targets) {
    figures[`${name}P50Ms`] = middle(name, 'one', 'p50Ms');
    figures[`${name}P99Ms`] = middle(name, 'one', 'p99Ms');
    figures[`${name}RequestsPerSecond`] = middle(name, 'whole', 'perSecond');
    figures[`${name}StreamsPerSecond`] = middle(name, 'streams', 'perSecond');
    if (pid === null) continue;
    figures[`${name}CpuUsPerRequest`] = middle(name, 'whole', 'cpuUs');
    figures[`${name}CpuUsPerStream`] = middle(name, 'streams', 'cpuUs');
    figures[`${name}AddedP50Ms`] = rounded(
      middle(name, 'one', 'p50Ms') - middle('direct', 'one', 'p50Ms'),
    );
  }
  for (const { name } of targets.slice(1, -1)) {
    for (const kind of ['whole', 'streams'] as const) {
      const others = of(name, kind);
      // Each round beside itself: what else the machine did then slowed both down.
      const ratios = of('edge', kind).map((run, index) => ({
        rate: run.perSecond / at(others, index).perSecond,
        cpu: run.cpuUs / at(others, index).cpuUs,
      }));
      figures[`${kind}Of_${name}`] = rounded(median(ratios.map(({ rate }) => rate)));
      figures[`${kind}CpuOf_${name}`] = rounded(median(ratios.map(({ cpu }) => cpu)));
    }
  }
  return figures;
}

/** Counted from 1. */
function noisyRounds(of: (name: string, kind: Kind) => readonly Run[]): number[] {
  const isNoisy = (round: number): boolean =>
    kinds.some((kind) => {
      const rates = of('bare', kind).map((run) => run.perSecond);
      return Math.abs(at(rates, round) / median(rates) - 1) > noisyShare;
    });
  return Array.from({ length: rounds }, (_, round) => round)
    .filter(isNoisy)
    .map((round) => round + 1);
}

function rounded(value: number): number {
  return Number(value.toFixed(3));
}

function bodyOf(more: object): string {
  const text = 'Tell me of the sea, and of those who sail it. '.repeat(8);
  return JSON.stringify({ model: seedModel, messages: [{ role: 'user', content: text }], ...more });
}
