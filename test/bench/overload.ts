/**
 * Whether a light tenant is served while heavy ones send more than the system can do, and whether that
 * costs throughput: the edge on Node and a worker with the tiny model, each a process of its own. First
 * the light tenant alone, then the capacity (as many requests at a time as there are slots and some),
 * then heavy tenants in an open loop at multiples of it with the light one beside them.
 */
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { servedModel, startHostileSystem } from '../hostile/system.ts';
import { seededRandom } from '../support/random.ts';
import { ask, closedLoop, openLoop, type Outcome } from './overload-client.ts';
import { recordResult } from './results.ts';

/** Of the capacity; others may be given as arguments. */
const given = process.argv.slice(2).map(Number);
const factors = given.length > 0 ? given : [2, 4, 8];
const heavyTenants = 4;
const roundSeconds = 20;
const lightRequests = 10;
const heavy = { promptTokens: 64, maxTokens: 48, waitMsMax: 5_000 };
const light = { promptTokens: 32, maxTokens: 8, waitMsMax: 30_000 };
/** All of them within 6 s, each on a connection of its own unless an earlier one is free again. */
const burst = { requests: 10_000, seconds: 6 };
/** Requests at a time in the run that measures capacity: more than the worker's 32 slots. */
const capacityConnections = 40;

const random = seededRandom(1);
const system = await startHostileSystem();
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
  const askLight = () => askAs(lightOne.key, light);

  for (let each = 0; each < 3; each++) await askLight();
  const alone = await times(lightRequests, askLight);
  const aloneP99Ms = quantile(firstTokens(alone), 0.99);

  const startMs = performance.now();
  const untilMs = startMs + roundSeconds * 1_000;
  const full = await Promise.all(
    Array.from({ length: capacityConnections }, (_, index) =>
      closedLoop(untilMs, () => askHeavy(index)),
    ),
  );
  const capacity = goodput(full.flat(), startMs, untilMs);
  const perRequest = heavy.promptTokens + heavy.maxTokens;
  console.log(`capacity ${round(capacity)} tokens/s, light alone p99 ${round(aloneP99Ms)} ms`);

  for (const factor of factors) {
    const beganMs = performance.now();
    const endMs = beganMs + roundSeconds * 1_000;
    const perSecond = (factor * capacity) / perRequest;
    let sent = 0;
    const load = openLoop({ untilMs: endMs, perSecond, uniform: random.uniform }, () =>
      askHeavy(sent++),
    );
    // Long enough for the queue to fill.
    await new Promise((resolve) => setTimeout(resolve, heavy.waitMsMax));
    const beside = await times(lightRequests, askLight);
    const outcomes = await load;
    const served = beside.filter(({ isWhole }) => isWhole);
    const all = [...outcomes, ...beside];
    const rate = goodput(all, beganMs, endMs);
    const figures = {
      lightServed: served.length,
      lightOf: lightRequests,
      lightAloneP50Ms: round(quantile(firstTokens(alone), 0.5)),
      lightAloneP99Ms: round(aloneP99Ms),
      lightP50Ms: round(quantile(firstTokens(beside), 0.5)),
      lightP99Ms: round(quantile(firstTokens(beside), 0.99)),
      heavyP50Ms: round(quantile(firstTokens(outcomes), 0.5)),
      capacityTokensPerSecond: round(capacity),
      goodputTokensPerSecond: round(rate),
      goodputOfCapacity: Number((rate / capacity).toFixed(3)),
      answered: all.filter(({ isWhole }) => isWhole).length,
      refused429: all.filter(({ status }) => status === 429).length,
      refusedWithoutRetryAfter: all.filter((each) => each.status === 429 && !each.retryAfter)
        .length,
      broken: all.filter(({ status, isWhole }) => status === 200 && !isWhole).length,
      otherStatus: all.filter(({ status }) => status !== 200 && status !== 429).length,
      load1m: round(loadavg()[0] ?? Number.NaN),
    };
    console.log(`${factor} times capacity`);
    console.table(figures);
    recordResult({
      benchmark: 'overload',
      shapes: { factor, heavyTenants, roundSeconds, heavy, light, model: 'tiny', backend: 'cpu' },
      figures,
    });
  }
  if (given.length === 0) await runBurst(askHeavy);
} finally {
  await system[Symbol.asyncDispose]();
}
process.exit();

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
    load1m: round(loadavg()[0] ?? Number.NaN),
  };
  console.log(`${burst.requests} requests within ${burst.seconds} s`);
  console.table(figures);
  const shapes = { burst, heavy, model: 'tiny', backend: 'cpu' };
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

async function times(count: number, askOne: () => Promise<Outcome>): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let each = 0; each < count; each++) outcomes.push(await askOne());
  return outcomes;
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
