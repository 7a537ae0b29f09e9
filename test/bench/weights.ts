/**
 * Weights from a store on loopback (the double, in a process of its own) against a plain sequential
 * GetObject of the same files and against the disk; peak memory of a load; and time from the start
 * of a worker to its first token. Client, store and disk share the machine, its processors above
 * all.
 */
import { strict as assert } from 'node:assert';
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { at } from '../../gpu-worker/at.ts';
import { openDirectory } from '../../gpu-worker/weights/directory-source.ts';
import { makeManifest, manifestName } from '../../gpu-worker/weights/manifest-file.ts';
import { s3Tuning } from '../../gpu-worker/weights/open-source.ts';
import { largeConfig, writeLargeCheckpoint } from '../support/weights/large-checkpoint.ts';
import { useStore } from '../support/weights/s3-checkpoint.ts';
import { median, recordResult } from './results.ts';

const runs = 3;
const layers = 6;
/** One connection to S3 usually brings this much; loopback brings far more. */
const bytesPerSecond = 90e6;
const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sift-bench-weights-'));
const tiny = join(root, 'gpu-worker/models/tiny');

interface Work {
  readonly seconds: number;
  /** CPU time of the client alone, its start included. */
  readonly cpuSeconds: number;
  readonly bytes: number;
  readonly peakBytes: number;
  readonly keptBytes?: number;
}

try {
  const large = join(folder, 'large');
  const bytes = writeLargeCheckpoint(large, largeConfig(layers));
  await writeManifest(large);
  const figures = {
    checkpointBytes: bytes,
    ...(await withStore({ directory: large, prefix: 'large' }, measureLoads)),
    ...(await withStore({ directory: large, prefix: 'large', bytesPerSecond }, measurePaced)),
    ...(await withStore({ directory: tiny, prefix: 'tiny' }, measureFirstToken)),
  };
  console.table(figures);
  recordResult({
    benchmark: 'weights',
    shapes: {
      store: 'the double on loopback',
      layers,
      runs,
      connections: 12,
      manifest: true,
      bytesPerSecond,
    },
    figures,
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function writeManifest(directory: string): Promise<void> {
  const source = await openDirectory(directory);
  const manifest = await makeManifest(source, { partBytes: s3Tuning.partBytes });
  writeFileSync(join(directory, manifestName), JSON.stringify(manifest));
}

/** One kind after the other in each run, so that the machine's moods meet all of them. */
async function measureLoads(): Promise<Record<string, number>> {
  const location = 's3://models/large';
  const rates: Record<string, number[]> = {};
  const cpuSeconds: Record<string, number[]> = {};
  const peaks: number[] = [];
  const measure = (name: string, kind: string, ...args: string[]): void => {
    const done = work(kind, ...args);
    (rates[name] ??= []).push(gigabytesPerSecond(done));
    (cpuSeconds[name] ??= []).push(done.cpuSeconds / (done.bytes / 1e9));
  };
  for (let run = 0; run < runs; run++) {
    const cache = join(folder, `cache-${run}`);
    measure('getObjectSequential', 'get-object', location);
    measure('loadKeptNowhere', 'load-uncached', location, cache);
    measure('loadColdCache', 'load', location, cache);
    measure('loadWarmCache', 'load', location, cache);
    measure('loadDirectory', 'load', join(folder, 'large'));
    measure('diskRead', 'read-files', join(folder, 'large'));
    measure('diskWriteFlushed', 'write-file', join(folder, 'written'));
    rmSync(cache, { recursive: true });
    const model = work('model', location, cache);
    assert(model.keptBytes !== undefined, 'a model says how many bytes it keeps');
    peaks.push((model.peakBytes - model.keptBytes) / 1e6);
    rmSync(cache, { recursive: true });
  }
  return {
    ...Object.fromEntries(
      Object.entries(rates).map(([name, values]) => [`${name}GBps`, round(median(values), 2)]),
    ),
    ...Object.fromEntries(
      ['getObjectSequential', 'loadKeptNowhere', 'loadColdCache', 'loadWarmCache'].map((name) => [
        `${name}CpuSecondsPerGB`,
        round(median(cpuSeconds[name] ?? []), 2),
      ]),
    ),
    peakAboveWeightsMB: round(Math.max(...peaks), 0),
  };
}

/** The same from a store whose connections are as slow as they are over a network. */
async function measurePaced(): Promise<Record<string, number>> {
  const location = 's3://models/large';
  const cache = join(folder, 'cache-paced');
  return {
    pacedGetObjectSequentialGBps: round(gigabytesPerSecond(work('get-object', location)), 2),
    pacedLoadKeptNowhereGBps: round(gigabytesPerSecond(work('load-uncached', location, cache)), 2),
  };
}

/** From the start of the process to the first token of an answer. */
async function measureFirstToken(): Promise<Record<string, number>> {
  const seconds: Record<'cold' | 'warm' | 'directory', number[]> = {
    cold: [],
    warm: [],
    directory: [],
  };
  for (let run = 0; run < runs; run++) {
    const cache = join(folder, `tiny-${run}`);
    seconds.cold.push(await secondsToFirstToken('s3://models/tiny', cache));
    seconds.warm.push(await secondsToFirstToken('s3://models/tiny', cache));
    seconds.directory.push(await secondsToFirstToken(tiny, cache));
  }
  return {
    firstTokenColdCacheSeconds: round(median(seconds.cold), 2),
    firstTokenWarmCacheSeconds: round(median(seconds.warm), 2),
    firstTokenDirectorySeconds: round(median(seconds.directory), 2),
  };
}

async function secondsToFirstToken(model: string, cache: string): Promise<number> {
  const port = 20_000 + (process.pid % 20_000);
  const startedMs = performance.now();
  const flags = ['--model', model, '--model-id', 'tiny', '--port', String(port)];
  const places = ['--data', join(folder, 'data'), '--weights-cache', cache, '--log-level', 'warn'];
  const worker = spawn(process.execPath, ['infra/sift.ts', 'worker', ...flags, ...places], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await untilReady(worker, `http://127.0.0.1:${port}/health`);
    const answer = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny', prompt: 'Hello', max_tokens: 1 }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    await answer.text();
    return (performance.now() - startedMs) / 1000;
  } finally {
    worker.kill('SIGTERM');
    if (worker.exitCode === null) await once(worker, 'exit');
  }
}

async function untilReady(worker: ChildProcess, health: string): Promise<void> {
  for (;;) {
    if (worker.exitCode !== null) throw new Error('the worker did not start');
    if ((await fetch(health).catch(() => null))?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function withStore<T>(
  files: { directory: string; prefix: string; bytesPerSecond?: number },
  measure: () => Promise<T>,
): Promise<T> {
  const double = fileURLToPath(new URL('../support/weights/s3-double-process.ts', import.meta.url));
  const pace = files.bytesPerSecond === undefined ? [] : [String(files.bytesPerSecond)];
  const store = spawn(process.execPath, [double, files.directory, files.prefix, ...pace], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    const [url] = await once(createInterface({ input: store.stdout }), 'line');
    useStore(String(url));
    return await measure();
  } finally {
    store.kill();
  }
}

function work(...args: string[]): Work {
  const child = fileURLToPath(new URL('./weights-child.ts', import.meta.url));
  const { stdout, status } = spawnSync(process.execPath, [child, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw new Error(`${args.join(' ')} failed`);
  const done: Work = JSON.parse(stdout);
  console.log(
    `${at(args, 0).padEnd(14)} ${gigabytesPerSecond(done).toFixed(2)} GB/s, peak ${round(done.peakBytes / 1e6, 0)} MB`,
  );
  return done;
}

function gigabytesPerSecond({ bytes, seconds }: Work): number {
  return bytes / 1e9 / seconds;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
