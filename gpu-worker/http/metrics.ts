/**
 * Prometheus metrics of one worker, in a registry of their own. What the engine counts is read from
 * it when the metrics are; only what HTTP alone knows (answers, times) is observed here.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineCounters, EngineLoad } from '../engine/request.ts';
import type { Lifecycle } from './lifecycle.ts';

export interface Metrics {
  requestEnded(request: { route: string; status: number; seconds: number }): void;
  firstToken(seconds: number): void;
  /** `tokens` new ones, each `seconds` after the one before it. */
  nextTokens(gap: { seconds: number; tokens: number }): void;
  /** Prometheus text format 0.0.4. */
  text(): Promise<string>;
}

export interface MetricsOptions {
  readonly lifecycle: Lifecycle;
  readonly version: string;
  readonly journalErrors: () => number;
}

const delayResolutionMs = 10;

const firstTokenBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const nextTokenBuckets = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1];
const requestBuckets = [0.005, 0.05, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

export function createMetrics({ lifecycle, version, journalErrors }: MetricsOptions): Metrics {
  const registry = new Registry();
  const registers = [registry];

  const requests = new Counter({
    name: 'sift_http_requests_total',
    help: 'Requests by route and status; 499 is a client that left.',
    labelNames: ['route', 'status'],
    registers,
  });
  const requestSeconds = new Histogram({
    name: 'sift_http_request_duration_seconds',
    help: 'From the request to the end of its answer, streams included.',
    labelNames: ['route'],
    buckets: requestBuckets,
    registers,
  });
  const firstTokenSeconds = new Histogram({
    name: 'sift_time_to_first_token_seconds',
    help: 'From the request to its first output token.',
    buckets: firstTokenBuckets,
    registers,
  });
  const nextTokenSeconds = new Histogram({
    name: 'sift_inter_token_latency_seconds',
    help: 'Between successive output tokens of one choice.',
    buckets: nextTokenBuckets,
    registers,
  });

  const engine = { registry, load: () => lifecycle.state().model?.engine.load() ?? null };
  for (const row of loadGauges) addLoadGauge(engine, row);
  for (const row of engineCounters) addEngineCounter(engine, row);
  addGauge(registry, 'sift_journal_errors', 'Failed writes of the usage journal.', journalErrors);
  addGauge(registry, 'sift_ready', '1 if the worker takes requests.', () =>
    lifecycle.state().status === 'ready' ? 1 : 0,
  );
  addLongestBlock(registry);
  addBuildInfo(registry, { lifecycle, version });

  return {
    requestEnded({ route, status, seconds }) {
      requests.inc({ route, status });
      requestSeconds.observe({ route }, seconds);
    },
    firstToken: (seconds) => firstTokenSeconds.observe(seconds),
    nextTokens({ seconds, tokens }) {
      // Tokens come one or a few at a time, so this loop is short.
      for (let token = 0; token < tokens; token++) nextTokenSeconds.observe(seconds);
    },
    text: () => registry.metrics(),
  };
}

/** One request that held this thread would make all others wait for so long. */
function addLongestBlock(registry: Registry): void {
  const delay = monitorEventLoopDelay({ resolution: delayResolutionMs });
  delay.enable();
  const help = 'Longest wait for the event loop since the metrics were last read.';
  addGauge(registry, 'sift_event_loop_delay_max_seconds', help, () => {
    // The histogram counts the time between two looks; nothing was seen yet where it is empty.
    const longestMs = Math.max(0, delay.max / 1e6 - delayResolutionMs);
    delay.reset();
    return longestMs / 1000;
  });
}

const loadGauges: readonly (readonly [string, string, (load: EngineLoad) => number])[] = [
  ['sift_running_sequences', 'Sequences that the engine computes.', (l) => l.runningSequences],
  ['sift_waiting_sequences', 'Sequences in the queue.', (l) => l.waitingSequences],
  ['sift_tokens_in_flight', 'Tokens still to be computed.', (l) => l.tokensInFlight],
  ['sift_kv_blocks_total', 'KV blocks of 64 tokens.', (l) => l.blocksTotal],
  ['sift_kv_blocks_free', 'KV blocks that no running sequence holds.', (l) => l.blocksFree],
  ['sift_kv_blocks_cached', 'KV blocks that hold a reusable prefix.', (l) => l.blocksCached],
];

const engineCounters: readonly (readonly [string, string, keyof EngineCounters])[] = [
  ['sift_engine_steps_total', 'Forward passes.', 'steps'],
  ['sift_prompt_tokens_total', 'Prompt tokens, cached ones included.', 'promptTokens'],
  ['sift_cached_tokens_total', 'Prompt tokens taken from the prefix cache.', 'cachedTokens'],
  ['sift_output_tokens_total', 'Generated tokens.', 'outputTokens'],
  ['sift_preemptions_total', 'Sequences put back to be recomputed.', 'preemptions'],
  ['sift_evicted_blocks_total', 'Cached blocks whose room was needed.', 'evictedBlocks'],
  ['sift_requests_finished_total', 'Engine requests that finished.', 'requestsFinished'],
  ['sift_requests_aborted_total', 'Engine requests whose client left.', 'requestsAborted'],
  ['sift_requests_refused_total', 'Engine requests refused.', 'requestsRefused'],
];

interface EngineReader {
  readonly registry: Registry;
  /** Null until the engine is ready. */
  load(): EngineLoad | null;
}

function addLoadGauge(engine: EngineReader, [name, help, read]: (typeof loadGauges)[number]): void {
  addGauge(engine.registry, name, help, () => {
    const load = engine.load();
    return load ? read(load) : 0;
  });
}

function addEngineCounter(
  engine: EngineReader,
  [name, help, key]: (typeof engineCounters)[number],
): void {
  const counter = new Counter({
    name,
    help,
    registers: [],
    collect() {
      // The engine keeps the total; prom-client can only add to its own.
      this.reset();
      this.inc(engine.load()?.counters[key] ?? 0);
    },
  });
  engine.registry.registerMetric(counter);
}

function addGauge(registry: Registry, name: string, help: string, read: () => number): void {
  const gauge = new Gauge({
    name,
    help,
    registers: [],
    collect() {
      this.set(read());
    },
  });
  registry.registerMetric(gauge);
}

function addBuildInfo(
  registry: Registry,
  { lifecycle, version }: Pick<MetricsOptions, 'lifecycle' | 'version'>,
): void {
  const gauge = new Gauge({
    name: 'sift_build_info',
    help: 'What is running; always 1.',
    labelNames: ['version', 'model', 'revision', 'backend'],
    registers: [],
    collect() {
      const model = lifecycle.state().model;
      this.reset();
      this.set(
        {
          version,
          model: model?.id ?? '',
          revision: model?.engine.description.revision ?? '',
          backend: model?.engine.description.backend ?? '',
        },
        1,
      );
    },
  });
  registry.registerMetric(gauge);
}
