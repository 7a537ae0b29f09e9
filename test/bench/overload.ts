/**
 * Shows if a light tenant is served while heavy ones send more than the system can do, and if
 * that costs throughput: the edge on Node and a worker with the tiny model, each a process of its
 * own. First the light tenant alone, then the capacity (as many requests at a time as there are
 * slots and some), then heavy tenants in an open loop at multiples of it with the light one beside
 * them, at random moments, and at last far more requests than can be served. All of it unless
 * arguments say which: factors, and `burst`. With BENCH_SYSTEM_CPUS=0,1 the edge and the worker run
 * on these two, and this process, which sends the load, on the others.
 */
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { servedModel, startHostileSystem } from '../hostile/system.ts';
import { seededRandom } from '../support/random.ts';
import { ask, closedLoop, openLoop, spacedLoop } from './overload-client.ts';
import type { Outcome } from './overload-client.ts';
import { readWorkerSteps, readWorkerTimes, stepMsOf } from './overload-worker.ts';
import { recordResult } from './results.ts';

const given = process.argv.slice(2);
/** Heavy tenants send at these multiples of the capacity. */
const factors = given.length > 0 ? given.filter((each) => each !== 'burst').map(Number) : [2, 4, 8];
const hasBurst = given.length === 0 || given.includes('burst');
const heavyTenants = 4;
const capacitySeconds = 20;
const lightRequests = 150;
/** The pause between the end of an answer and the light one's next request, on average. */
const lightPauseMs = 250;
const heavy = { promptTokens: 64, maxTokens: 48, waitMsMax: 5_000 };
const light = { promptTokens: 32, maxTokens: 8, waitMsMax: 30_000 };
/**
 * All of the burst comes within 6 s, each on a connection of its own unless an earlier one is free
 * again.
 */
const burst = { requests: 10_000, seconds: 6 };
/** Requests at a time in the run that measures capacity: more than the worker's 32 slots. */
const capacityConnections = 40;
const bars = { goodputOfCapacityMin: 0.95, burstMiBMax: 1_024 };

const random = seededRandom(1);
/**
 * The lateness of this process, which sends the load and shares the cores with what it measures.
 */
const ownDelay = monitorEventLoopDelay({ resolution: 5 });
ownDelay.enable();
const systemCpus = process.env['BENCH_SYSTEM_CPUS'];
const system = await startHostileSystem({ cpus: systemCpus });
try {
  const heavies: { readonly key: string }[] = [];
  for (let each = 0; each < heavyTenants; each++) {
    heavies.push(await system.addTenant(`heavy-${each}`, 1e15));
  }
  const lightOne = await system.addTenant('light', 1e15);
  const askAs = (key: string, of: typeof heavy): Promise<Outcome> =>
    ask({
      url: system.edge.url,
      key,
      model: servedModel,
      ...of,
      promptIds: promptOf(of.promptTokens),
    });
  const askHeavy = (index: number) => askAs(heavies[index % heavyTenants]?.key ?? '', heavy);
  const askLight = () =>
    spacedLoop({ count: lightRequests, pauseMs: lightPauseMs, uniform: random.uniform }, () =>
      askAs(lightOne.key, light),
    );

  for (let each = 0; each < 3; each++) await askAs(lightOne.key, light);
  const alone = await askLight();
  const { capacity, stepMs } = await measureCapacity(askHeavy);
  const aloneP99Ms = quantile(firstTokens(alone), 0.99);
  const lightBarMs = 2 * aloneP99Ms + stepMs;
  console.log(
    `capacity ${round(capacity)} tokens/s, a step ${round(stepMs)} ms, ` +
      `light alone p99 ${round(aloneP99Ms)} ms, bar ${round(lightBarMs)} ms`,
  );
  for (const factor of factors) {
    await measureBeside({ factor, capacity, alone, lightBarMs, askHeavy, askLight });
  }
  if (hasBurst) await runBurst(askHeavy);
} finally {
  await system[Symbol.asyncDispose]();
}
process.exit();

/** Measures what all slots do together, and the length of a step then. */
async function measureCapacity(askOne: (index: number) => Promise<Outcome>) {
  const before = await readWorkerSteps(system.worker.url);
  const startMs = performance.now();
  const untilMs = startMs + capacitySeconds * 1_000;
  const running = Array.from({ length: capacityConnections }, (_, index) =>
    closedLoop(untilMs, () => askOne(index)),
  );
  await new Promise((resolve) => setTimeout(resolve, untilMs - performance.now()));
  const after = await readWorkerSteps(system.worker.url);
  const outcomes = (await Promise.all(running)).flat();
  return { capacity: goodput(outcomes, startMs, untilMs), stepMs: stepMsOf(before, after) };
}

async function measureBeside(of: {
  readonly factor: number;
  readonly capacity: number;
  readonly alone: readonly Outcome[];
  readonly lightBarMs: number;
  readonly askHeavy: (index: number) => Promise<Outcome>;
  readonly askLight: () => Promise<Outcome[]>;
}): Promise<void> {
  const { factor, capacity, alone, lightBarMs } = of;
  const logMark = system.worker.mark();
  ownDelay.reset();
  const perSecond = (factor * capacity) / (heavy.promptTokens + heavy.maxTokens);
  const stop = new AbortController();
  const beganMs = performance.now();
  let sent = 0;
  const { uniform } = random;
  const load = openLoop({ untilMs: Infinity, perSecond, uniform, signal: stop.signal }, () =>
    of.askHeavy(sent++),
  );
  // Long enough for the queue to fill.
  await new Promise((resolve) => setTimeout(resolve, heavy.waitMsMax));
  const beside = await of.askLight();
  const endMs = performance.now();
  const ownDelayP99Ms = ownDelay.percentile(99) / 1e6;
  stop.abort();
  const outcomes = await load;

  const all = [...outcomes, ...beside];
  const goodputOfCapacity = goodput(all, beganMs, endMs) / capacity;
  const served = beside.filter(({ isWhole }) => isWhole).length;
  const times = firstTokens(beside);
  const inWorker = readWorkerTimes(system.worker.said(logMark));
  const workerTimes = beside.map(({ requestId }) => inWorker.get(requestId) ?? Number.NaN);
  const edgeTimes = beside.map(({ firstTokenMs }, at) => firstTokenMs - (workerTimes[at] ?? 0));
  const lightP99Ms = quantile(times, 0.99);
  const broken = all.filter(({ status, isWhole }) => status === 200 && !isWhole).length;
  const otherStatus = all.filter(({ status }) => status !== 200 && status !== 429).length;
  const figures = {
    lightServed: served,
    lightOf: lightRequests,
    lightAloneP50Ms: round(quantile(firstTokens(alone), 0.5)),
    lightAloneP99Ms: round(quantile(firstTokens(alone), 0.99)),
    lightP50Ms: round(quantile(times, 0.5)),
    lightP90Ms: round(quantile(times, 0.9)),
    lightP99Ms: round(lightP99Ms),
    lightBarMs: round(lightBarMs),
    lightBar: served === lightRequests && lightP99Ms <= lightBarMs ? 'met' : 'not met',
    lightInWorkerP50Ms: round(quantile(workerTimes, 0.5)),
    lightInWorkerP99Ms: round(quantile(workerTimes, 0.99)),
    lightInEdgeP50Ms: round(quantile(edgeTimes, 0.5)),
    lightInEdgeP99Ms: round(quantile(edgeTimes, 0.99)),
    ownDelayP99Ms: round(ownDelayP99Ms),
    heavyP50Ms: round(quantile(firstTokens(outcomes), 0.5)),
    capacityTokensPerSecond: round(capacity),
    goodputOfCapacity: Number(goodputOfCapacity.toFixed(3)),
    goodputBar: goodputOfCapacity >= bars.goodputOfCapacityMin ? 'met' : 'not met',
    answered: all.filter(({ isWhole }) => isWhole).length,
    refused429: all.filter(({ status }) => status === 429).length,
    refusedWithoutRetryAfter: all.filter((each) => each.status === 429 && !each.retryAfter).length,
    broken,
    otherStatus,
    statusBar: broken + otherStatus === 0 ? 'met' : 'not met',
    load1m: round(loadavg()[0] ?? Number.NaN),
  };
  console.log(`${factor} times capacity`);
  console.table(figures);
  const shapes = { factor, heavyTenants, heavy, light, model: 'tiny', backend: 'cpu', systemCpus };
  recordResult({ benchmark: 'overload', shapes, figures });
}

/** Far more at once than can be served or may wait. */
async function runBurst(askOne: (index: number) => Promise<Outcome>): Promise<void> {
  let sent = 0;
  const beganMs = performance.now();
  const outcomes = await openLoop(
    {
      untilMs: beganMs + burst.seconds * 1_000,
      perSecond: burst.requests / burst.seconds,
      uniform: random.uniform,
    },
    () => askOne(sent++),
  );
  const counted = new Map<string, number>();
  for (const { status, isWhole } of outcomes) {
    const name = status === 200 ? (isWhole ? 'answered' : 'broken') : `status${status}`;
    counted.set(name, (counted.get(name) ?? 0) + 1);
  }
  const edgeMiB = peakMiB(system.edge.pid);
  const workerMiB = peakMiB(system.worker.pid);
  const figures = {
    sent,
    ...Object.fromEntries(counted),
    seconds: round((performance.now() - beganMs) / 1_000),
    edgePeakMiB: edgeMiB,
    workerPeakMiB: workerMiB,
    peakMiB: edgeMiB + workerMiB,
    memoryBar: edgeMiB + workerMiB <= bars.burstMiBMax ? 'met' : 'not met',
    load1m: round(loadavg()[0] ?? Number.NaN),
  };
  console.log(`${burst.requests} requests within ${burst.seconds} s`);
  console.table(figures);
  const shapes = { burst, heavy, model: 'tiny', backend: 'cpu', systemCpus };
  recordResult({ benchmark: 'overload-burst', shapes, figures });
}

/** The most memory that a process ever held; 0 where that is not told. */
function peakMiB(pid: number): number {
  try {
    const [, kB] = /VmHWM:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return Math.round(Number(kB ?? 0) / 1_024);
  } catch {
    return 0;
  }
}

/** Ids of ordinary tokens, another prompt each time, so that nothing is cached. */
function promptOf(tokens: number): number[] {
  return Array.from({ length: tokens }, () => random.integer(300, 900));
}

/** Tokens a second of whole answers, each counted for the part of it that lies in the time. */
function goodput(outcomes: readonly Outcome[], fromMs: number, toMs: number): number {
  let tokens = 0;
  for (const { tokens: all, beganMs, endedMs, firstTokenMs } of outcomes) {
    if (all === 0) continue;
    const startMs = beganMs + firstTokenMs;
    const inside = Math.min(endedMs, toMs) - Math.max(startMs, fromMs);
    tokens += (all * Math.max(0, inside)) / Math.max(1, endedMs - startMs);
  }
  return (tokens * 1_000) / (toMs - fromMs);
}

function firstTokens(outcomes: readonly Outcome[]): number[] {
  return outcomes.filter(({ isWhole }) => isWhole).map(({ firstTokenMs }) => firstTokenMs);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function round(value: number): number {
  return Number(value.toFixed(1));
}
