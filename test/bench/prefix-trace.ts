/**
 * Replays the Mooncake trace through the real tenant (chain, admit, placed, settle) and the real
 * placement rule, against simulated workers with an LRU cache of 3M tokens each. The yardstick is
 * the same rule with exact knowledge of every worker's cache and no index at all: the index is to
 * reach 95% of its hit share. Prefill is the only work simulated; a worker computes its requests in
 * order.
 */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { openTenantDb } from '../../db/drivers/better-sqlite3.ts';
import { chooseWorker } from '../../edge/fleet/placement.ts';
import { chainOfBytes, prefixRoot } from '../../edge/prefix/chain.ts';
import type { PrefixKey } from '../../edge/tenant/admission-contract.ts';
import { createTenant } from '../../edge/tenant/tenant.ts';
import { addKey, admitInput, settleInput, usageOf } from '../support/edge/tenant-samples.ts';
import { median, recordResult } from './results.ts';

const traceFile =
  process.argv[2] ??
  fileURLToPath(new URL('./traces/mooncake_synthetic_trace.jsonl', import.meta.url));
const workerCount = 8;
const cacheTokens = 3_000_000;
const tokensPerSecond = 10_000;
const blockTokens = 512;
const bytesPerToken = 4;
/** A worker bills by whole blocks of the engine. */
const engineBlockTokens = 64;

interface TraceRequest {
  readonly atMs: number;
  readonly tokens: number;
  /** Ids of blocks of 512 tokens: equal ids mean an equal prompt up to and with that block. */
  readonly blocks: readonly number[];
}

interface Placed {
  readonly waitMs: number;
  readonly hitTokens: number;
  readonly promisedTokens: number;
}

interface AnswerEnd {
  readonly atMs: number;
  readonly end: () => Promise<void>;
}

/**
 * Blocks in order of use, the least recent first; a chain's root is touched last, so leaves go
 * first.
 */
class SimulatedWorker {
  readonly blocks = new Map<number, number>();
  tokens = 0;
  busyUntilMs = 0;
  tokensInFlight = 0;

  hitTokens(request: TraceRequest): number {
    let hit = 0;
    for (const [index, block] of request.blocks.entries()) {
      if (!this.blocks.has(block)) break;
      hit = Math.min(request.tokens, (index + 1) * blockTokens);
    }
    return hit - (hit % engineBlockTokens);
  }

  store(request: TraceRequest): void {
    for (let index = request.blocks.length - 1; index >= 0; index--) {
      const block = request.blocks[index] ?? -1;
      this.tokens -= this.blocks.get(block) ?? 0;
      this.blocks.delete(block);
      const tokens = Math.min(blockTokens, request.tokens - index * blockTokens);
      this.blocks.set(block, tokens);
      this.tokens += tokens;
    }
    for (const [block, tokens] of this.blocks) {
      if (this.tokens <= cacheTokens) return;
      this.blocks.delete(block);
      this.tokens -= tokens;
    }
  }
}

/** The knowledge of the caches that a run has when it places a request, and learns from its end. */
interface Knowledge {
  readonly know: (
    request: TraceRequest,
    workers: readonly SimulatedWorker[],
  ) => Promise<{
    readonly cached: readonly number[];
    readonly tieKey: string;
    readonly state: unknown;
  }>;
  readonly placed: (state: unknown, worker: number) => Promise<void>;
  readonly ended: (state: unknown, worker: number) => Promise<void>;
}

const clock = { now: 0, nowMs: () => Date.UTC(2026, 0, 1) + Math.floor(clock.now) };
const trace = await readTrace();
const root = prefixRoot('secret', {
  tenant: 't',
  scope: '',
  model: 'm',
  revision: 'r',
  tokenizer: 'k',
});
const cpuStart = process.cpuUsage();
const indexed = await replay(await throughTheTenant());
const cpu = process.cpuUsage(cpuStart);
const exact = await replay(withExactKnowledge());
const figures = {
  hitShare: share(indexed, ({ hitTokens }) => hitTokens),
  exactHitShare: share(exact, ({ hitTokens }) => hitTokens),
  ofExact: 0,
  meanTimeToFirstTokenMs: mean(indexed),
  exactMeanTimeToFirstTokenMs: mean(exact),
  p95TimeToFirstTokenMs: p95(indexed),
  exactP95TimeToFirstTokenMs: p95(exact),
  /** Promised and not held, as a share of all input: what a quote would have got wrong. */
  overPromisedShare: share(indexed, (r) => Math.max(0, r.promisedTokens - r.hitTokens)),
  cpuMicrosPerRequest: Math.round((cpu.user + cpu.system) / trace.length),
};
figures.ofExact = round4(figures.hitShare / figures.exactHitShare);
console.table(figures);
recordResult({
  benchmark: 'prefix-trace',
  shapes: { requests: trace.length, workerCount, cacheTokens, tokensPerSecond },
  figures,
});
if (figures.ofExact < 0.95) throw new Error('the index reaches less than 95% of exact knowledge');

async function replay(knowledge: Knowledge): Promise<Placed[]> {
  const workers = Array.from({ length: workerCount }, () => new SimulatedWorker());
  const answerEnds: AnswerEnd[] = [];
  const results: Placed[] = [];
  for (const request of trace) {
    while ((answerEnds[0]?.atMs ?? Infinity) <= request.atMs) {
      const next = answerEnds.shift();
      clock.now = next?.atMs ?? clock.now;
      await next?.end();
    }
    clock.now = request.atMs;
    const { cached, tieKey, state } = await knowledge.know(request, workers);
    const candidates = workers.map((worker, index) => ({
      worker: `w${index}`,
      index,
      tokensInFlight: worker.tokensInFlight,
      cachedTokens: Math.min(cached[index] ?? 0, request.tokens),
      tokensPerSecond,
    }));
    const chosen = chooseWorker(candidates, { promptTokens: request.tokens, tieKey });
    const worker = workers[chosen?.index ?? -1];
    if (chosen === null || worker === undefined) throw new Error('a worker is always chosen');
    await knowledge.placed(state, chosen.index);

    const hitTokens = worker.hitTokens(request);
    worker.store(request);
    const startMs = Math.max(request.atMs, worker.busyUntilMs);
    const endMs = startMs + ((request.tokens - hitTokens) / tokensPerSecond) * 1_000;
    worker.busyUntilMs = endMs;
    const counted = request.tokens - chosen.cachedTokens;
    worker.tokensInFlight += counted;
    insertByTime(answerEnds, {
      atMs: endMs,
      end: async () => {
        worker.tokensInFlight -= counted;
        await knowledge.ended(state, chosen.index);
      },
    });
    results.push({ waitMs: endMs - request.atMs, hitTokens, promisedTokens: chosen.cachedTokens });
  }
  return results;
}

async function throughTheTenant(): Promise<Knowledge> {
  const tenant = createTenant(openTenantDb(':memory:').db, { clock });
  await addKey(tenant);
  await tenant.credit({ kind: 'topped-up', amountNanoUsd: 1e15, source: 'bench', note: '' });
  let count = 0;
  interface State {
    readonly requestId: string;
    readonly chain: readonly PrefixKey[];
  }
  return {
    know: async (request) => {
      const requestId = `r${count++}`;
      const chain = chainOfBytes(promptBytes(request), root);
      const bounds = { promptTokensMax: request.tokens * bytesPerToken, outputTokensMax: 100 };
      const admitted = await tenant.admit(admitInput(requestId, { ...bounds, prefixChain: chain }));
      if (admitted.kind !== 'admitted') throw new Error('the trace is admitted');
      const cached = Array.from({ length: workerCount }, () => 0);
      for (const { worker, bytes } of admitted.prefixHits) {
        cached[Number(worker.slice(1))] = Math.floor(bytes / bytesPerToken);
      }
      return { cached, tieKey: chain[0]?.key ?? requestId, state: { requestId, chain } };
    },
    placed: async (state, worker) => {
      // The state is what `know` returned.
      const { requestId, chain } = state as State;
      await tenant.placed({
        requestId,
        worker: `w${worker}`,
        epoch: 1,
        workerUrl: 'http://w',
        chain,
      });
    },
    ended: async (state, worker) => {
      const { requestId, chain } = state as State; // As above.
      const usage = usageOf({ inputUncached: 1, outputText: 1 });
      await tenant.settle(
        settleInput(requestId, { usage, worker: `w${worker}`, epoch: 1, confirmedChain: chain }),
      );
    },
  };
}

function withExactKnowledge(): Knowledge {
  let count = 0;
  return {
    know: async (request, workers) => ({
      cached: workers.map((worker) => worker.hitTokens(request)),
      tieKey: `${request.blocks[0] ?? count++}`,
      state: null,
    }),
    placed: async () => {},
    ended: async () => {},
  };
}

/** 2,048 bytes for each block, equal where its id is. */
function promptBytes(request: TraceRequest): Buffer {
  const bytes = Buffer.alloc(request.tokens * bytesPerToken);
  request.blocks.forEach((block, index) => {
    const start = index * blockTokens * bytesPerToken;
    bytes.fill(
      `block ${block} `,
      start,
      Math.min(start + blockTokens * bytesPerToken, bytes.length),
    );
  });
  return bytes;
}

async function readTrace(): Promise<TraceRequest[]> {
  const requests: TraceRequest[] = [];
  for await (const line of createInterface({ input: createReadStream(traceFile) })) {
    if (line.trim() === '') continue;
    // The layout is stated beside the file; a line that differs makes the sums below NaN.
    const row = JSON.parse(line) as { timestamp: number; input_length: number; hash_ids: number[] };
    requests.push({ atMs: row.timestamp, tokens: row.input_length, blocks: row.hash_ids });
  }
  return requests;
}

function insertByTime(answerEnds: AnswerEnd[], end: AnswerEnd): void {
  const at = answerEnds.findLastIndex(({ atMs }) => atMs <= end.atMs);
  answerEnds.splice(at + 1, 0, end);
}

function share(results: readonly Placed[], tokensOf: (placed: Placed) => number): number {
  const input = trace.reduce((sum, { tokens }) => sum + tokens, 0);
  return round4(results.reduce((sum, placed) => sum + tokensOf(placed), 0) / input);
}

function mean(results: readonly Placed[]): number {
  return Math.round(results.reduce((sum, { waitMs }) => sum + waitMs, 0) / results.length);
}

function p95(results: readonly Placed[]): number {
  const waits = results.map(({ waitMs }) => waitMs).toSorted((a, b) => a - b);
  return Math.round(waits[Math.floor(waits.length * 0.95)] ?? median(waits));
}

function round4(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
