/**
 * Measures how long one request keeps the edge's event loop, the worker's HTTP thread and the
 * engine: the edge on Node and a worker with the tiny model, each a process of its own, are sent
 * large and costly requests, one at a time and three at once. The bar for the first two is 50 ms. A
 * machine that others load makes times longer and never shorter, so the least of several repeats
 * counts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { secrets, servedModel, startHostileSystem } from '../hostile/system.ts';
import type { Caller } from '../hostile/system.ts';
import type { StartedProgram } from '../support/started-program.ts';
import { writeToolsModel } from '../support/worker/tools-model.ts';
import { recordResult } from './results.ts';
import { stallRequests } from './stall-requests.ts';
import type { StallRequest } from './stall-requests.ts';

const atOnce = 3;
const barMs = 50;
/** A program whose event loop stands still answers the signal once it goes on. */
const answerMsMax = 60_000;
/** The work that a request leaves behind, such as its settlement, is counted with it. */
const restMs = 200;
/** Requests whose name fits the first pattern, or all; each so many times. */
const [wanted = '', given = '3'] = process.argv.slice(2);
const repeats = Number(given);

const stallsSchema = z.object({
  mainWallUs: z.number(),
  mainCpuUs: z.number(),
  engineWallUs: z.number(),
  engineCpuUs: z.number(),
});

const folder = mkdtempSync(join(tmpdir(), 'sift-stalls-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
// The tiny model with a template that shows tools: the plain one's has no room for them.
writeToolsModel(join(folder, 'model'));
const system = await startHostileSystem({
  workerFlags: ['--model', join(folder, 'model')],
  nodeFlags: ['--import', fileURLToPath(new URL('./watch-threads.ts', import.meta.url))],
});
const caller = await system.addTenant('stalls', 1e15);
const over: string[] = [];
try {
  for (const [name, requestOf] of Object.entries(stallRequests)) {
    if (!new RegExp(wanted).test(name)) continue;
    const request = requestOf();
    const made = request.body();
    const body = Buffer.from(
      typeof made === 'string' ? made : JSON.stringify({ model: servedModel, ...made }),
    );
    for (const to of ['edge', 'worker'] as const) {
      if (to === 'worker' && request.path.startsWith('/anthropic')) continue;
      for (const senders of [1, atOnce]) await measure({ name, request, body, to, senders });
    }
  }
} finally {
  await system[Symbol.asyncDispose]();
}
console.log(over.length === 0 ? `all below ${barMs} ms` : `above ${barMs} ms:\n${over.join('\n')}`);
process.exit();

async function measure(of: {
  readonly name: string;
  readonly request: StallRequest;
  readonly body: Buffer<ArrayBuffer>;
  readonly to: 'edge' | 'worker';
  readonly senders: number;
}): Promise<void> {
  const { name, request, body, to, senders } = of;
  const runs: Record<string, number>[] = [];
  let answer = '';
  for (let repeat = 0; repeat < repeats; repeat++) {
    await stalls();
    const startMs = performance.now();
    const answers = await Promise.all(
      Array.from({ length: senders }, () => send(to, request.path, { body, caller })),
    );
    const seconds = (performance.now() - startMs) / 1_000;
    await sleep(restMs);
    answer = [...new Set(answers)].join(' ');
    runs.push({ ...(await stalls()), seconds });
  }
  const figures = leastOf(runs);
  const load1m = Number((loadavg()[0] ?? 0).toFixed(1));
  const title = `${name}, to the ${to}, ${senders} at once`;
  console.log(`${title}: ${answer}, load ${load1m}\n  ${JSON.stringify(figures)}`);
  if (Math.max(figures['edgeCpuMs'] ?? 0, figures['workerCpuMs'] ?? 0) > barMs) over.push(title);
  const shapes = { request: name, to, senders, repeats, bodyBytes: body.length };
  recordResult({ benchmark: 'stalls', shapes, figures: { ...figures, answer, load1m } });
}

function leastOf(runs: readonly Record<string, number>[]): Record<string, number> {
  const names = Object.keys(runs[0] ?? {});
  return Object.fromEntries(
    names.map((name) => {
      const least = Math.min(...runs.map((run) => run[name] ?? Infinity));
      return [name, Number(least.toFixed(1))];
    }),
  );
}

/** @returns the status and the bytes of the answer. */
async function send(
  to: 'edge' | 'worker',
  path: string,
  { body, caller: { key } }: { readonly body: Buffer<ArrayBuffer>; readonly caller: Caller },
): Promise<string> {
  const token = to === 'edge' ? key : secrets.workerToken;
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const response = await fetch(system[to].url + path, { method: 'POST', headers, body });
  let bytes = 0;
  for await (const piece of response.body ?? []) bytes += piece.length;
  return `${response.status} (${bytes} bytes)`;
}

/** The longest since the last call. */
async function stalls(): Promise<Record<string, number>> {
  const [edge, worker] = await Promise.all([stallsOf(system.edge), stallsOf(system.worker)]);
  return {
    edgeCpuMs: edge.mainCpuUs / 1_000,
    workerCpuMs: worker.mainCpuUs / 1_000,
    engineCpuMs: worker.engineCpuUs / 1_000,
    edgeWallMs: edge.mainWallUs / 1_000,
    workerWallMs: worker.mainWallUs / 1_000,
    engineWallMs: worker.engineWallUs / 1_000,
  };
}

async function stallsOf(program: StartedProgram): Promise<z.infer<typeof stallsSchema>> {
  const mark = program.mark();
  process.kill(program.pid, 'SIGUSR2');
  const untilMs = performance.now() + answerMsMax;
  while (performance.now() < untilMs) {
    const [, json] = /longest stalls (\{[^}]*\})/.exec(program.said(mark)) ?? [];
    if (json !== undefined) return stallsSchema.parse(JSON.parse(json));
    await sleep(5);
  }
  throw new Error('a program does not tell for how long it stood still');
}
