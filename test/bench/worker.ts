/**
 * The worker with the tiny model as its clients see it, over HTTP on loopback: prefill, decode,
 * time to first token with and without a cached prefix, start time, and memory over many requests.
 * The load generator shares the machine with the worker.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { median, recordResult } from './results.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const modelId = 'sift-tiny';
const promptTokens = 4096;
const runs = 7;
const soakRequests = 1000;

interface Timing {
  readonly firstTokenMs: number;
  readonly totalMs: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

const data = mkdtempSync(join(tmpdir(), 'sift-bench-'));
const { worker, url, readyMs } = await startWorker();
try {
  await generate({ prompt: randomPrompt(promptTokens), maxTokens: 8, salt: 'warm-up' });

  const cold: Timing[] = [];
  const cached: Timing[] = [];
  for (let run = 0; run < runs; run++) {
    const prompt = randomPrompt(promptTokens);
    cold.push(await generate({ prompt, maxTokens: 1, salt: `prefill-${run}` }));
    cached.push(await generate({ prompt, maxTokens: 1, salt: `prefill-${run}` }));
  }
  const coldMs = median(cold.map((timing) => timing.firstTokenMs));
  const cachedMs = median(cached.map((timing) => timing.firstTokenMs));

  const short = await decodeRate({ streams: 1, promptTokens: 64 });
  const long = await decodeRate({ streams: 1, promptTokens });
  const eight = await decodeRate({ streams: 8, promptTokens: 64 });
  const eightLong = await decodeRate({ streams: 8, promptTokens: 2048 });
  const soak = await soakMemory(worker);

  const figures = {
    readyMs: round(readyMs),
    prefillTokensPerSecond: round((promptTokens / coldMs) * 1000),
    timeToFirstTokenMs: round(coldMs),
    timeToFirstTokenCachedMs: round(cachedMs),
    cachedTokens: median(cached.map((timing) => timing.cachedTokens)),
    cachedShareOfUncached: round(cachedMs / coldMs, 4),
    decodeTokensPerSecond: round(short),
    decodeAt4096TokensPerSecond: round(long),
    decode8StreamsTokensPerSecond: round(eight),
    decode8StreamsAt2048TokensPerSecond: round(eightLong),
    ...soak,
  };
  console.table(figures);
  recordResult({
    benchmark: 'worker',
    shapes: { model: 'tiny', backend: 'cpu', numerics: 'f32', promptTokens, runs, soakRequests },
    figures,
  });
} finally {
  worker.kill('SIGTERM');
  await new Promise((resolve) => worker.once('exit', resolve));
  rmSync(data, { recursive: true, force: true });
}

/** Spawns the worker as a user would, on a free port; ready when /health says so. */
async function startWorker(): Promise<{ worker: ChildProcess; url: string; readyMs: number }> {
  const port = 20_000 + (process.pid % 20_000);
  const startedMs = performance.now();
  const flags = ['--model', 'gpu-worker/models/tiny', '--port', String(port), '--data', data];
  const child = spawn(
    process.execPath,
    ['infra/sift.ts', 'worker', ...flags, '--log-level', 'warn'],
    {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  const address = `http://127.0.0.1:${port}`;
  for (;;) {
    if (child.exitCode !== null) throw new Error('the worker did not start');
    const health = await fetch(`${address}/health`).catch(() => null);
    if (health?.ok) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return { worker: child, url: address, readyMs: performance.now() - startedMs };
}

/** One streamed completion over token ids; never ends early. */
async function generate(request: {
  prompt: number[];
  maxTokens: number;
  salt: string;
}): Promise<Timing> {
  const startedMs = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: modelId,
      prompt: request.prompt,
      max_tokens: request.maxTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      cache_salt: request.salt,
    }),
  });
  if (!response.ok || response.body === null) throw new Error(await response.text());
  let firstTokenMs = Number.NaN;
  let outputTokens = 0;
  let cachedTokens = 0;
  const events = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const event of events) {
    if (event.data === '[DONE]') break;
    const { usage } = JSON.parse(event.data);
    if (!usage) continue;
    outputTokens = usage.completion_tokens;
    cachedTokens = usage.prompt_tokens_details.cached_tokens;
    if (outputTokens > 0 && Number.isNaN(firstTokenMs))
      firstTokenMs = performance.now() - startedMs;
  }
  return { firstTokenMs, totalMs: performance.now() - startedMs, outputTokens, cachedTokens };
}

/** Tokens per second after the first token of each stream, all streams together. */
async function decodeRate(shape: { streams: number; promptTokens: number }): Promise<number> {
  const rates: number[] = [];
  for (let run = 0; run < 3; run++) {
    const prompts = Array.from({ length: shape.streams }, () => randomPrompt(shape.promptTokens));
    const salt = `decode-${shape.streams}-${shape.promptTokens}-${run}`;
    // Prompts are computed first, so that the timed part decodes only.
    await Promise.all(prompts.map((prompt) => generate({ prompt, maxTokens: 1, salt })));
    const timings = await Promise.all(
      prompts.map((prompt) => generate({ prompt, maxTokens: 256, salt })),
    );
    const last = Math.max(...timings.map((timing) => timing.totalMs));
    const first = Math.min(...timings.map((timing) => timing.firstTokenMs));
    const tokens = timings.reduce((sum, timing) => sum + timing.outputTokens - 1, 0);
    rates.push((tokens / (last - first)) * 1000);
  }
  return median(rates);
}

/** Resident memory of the worker over many requests, two at a time, half of them aborted early. */
async function soakMemory(child: ChildProcess): Promise<Record<string, number>> {
  const samples: number[] = [];
  for (let done = 0; done < soakRequests; done += 2) {
    const salt = `soak-${done % 50}`;
    await Promise.all([
      generate({ prompt: randomPrompt(50 + (done % 500)), maxTokens: 8, salt }),
      abortEarly({ prompt: randomPrompt(50 + (done % 300)), salt }),
    ]);
    if (done % 100 === 98) samples.push(residentMib(child));
  }
  return {
    residentAfter200Mib: round(samples[1] ?? Number.NaN),
    residentAfter600Mib: round(samples[5] ?? Number.NaN),
    residentAfter1000Mib: round(samples.at(-1) ?? Number.NaN),
  };
}

async function abortEarly(request: { prompt: number[]; salt: string }): Promise<void> {
  const controller = new AbortController();
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: modelId,
      prompt: request.prompt,
      max_tokens: 200,
      stream: true,
      cache_salt: request.salt,
    }),
    signal: controller.signal,
  });
  await response.body?.getReader().read();
  controller.abort();
}

function residentMib(child: ChildProcess): number {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

function randomPrompt(length: number): number[] {
  return Array.from({ length }, () => 8 + Math.floor(Math.random() * 4000));
}

function round(value: number, digits = 1): number {
  return Number(value.toFixed(digits));
}
