/**
 * Prometheus metrics of an edge, in a registry of their own. Requests are counted as they end; what
 * the fleet knows is read from it when the metrics are. No label has a tenant or a key: there may
 * be any number of them, and their figures are in their ledgers.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { WorkerStatus } from '../fleet/worker-contract.ts';
import type { EndedRequest } from '../observe/ended-request.ts';
import type { Observe } from '../observe/request-record.ts';

export interface EdgeMetrics {
  readonly observe: Observe;
  /** Prometheus text format 0.0.4. */
  text(): Promise<string>;
}

/** The metrics read this of the fleet. */
export interface FleetReader {
  status(): Promise<readonly WorkerStatus[]>;
  /** Requests that wait for their turn, of all models. */
  waitingRequests(): number;
}

const durationBuckets = [0.005, 0.05, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const firstTokenBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const queueBuckets = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export function createEdgeMetrics(options: {
  readonly fleet: FleetReader;
  /**
   * The longest wait for the event loop of any thread since this was asked last. Whoever answers it
   * has sent the requests that it had to tell of before.
   */
  readonly takeLongestBlockMs: () => Promise<number>;
}): EdgeMetrics {
  const registry = new Registry();
  const observe = countRequests(registry);
  readFleet(registry, options.fleet);
  const longestBlock = new Gauge({
    name: 'sift_edge_event_loop_delay_max_seconds',
    help: 'Longest wait for an event loop since the metrics were last read.',
    registers: [registry],
  });
  collectDefaultMetrics({ register: registry });
  return {
    observe,
    async text() {
      longestBlock.set((await options.takeLongestBlockMs()) / 1_000);
      return registry.metrics();
    },
  };
}

function countRequests(registry: Registry): Observe {
  const registers = [registry];
  const requests = new Counter({
    name: 'sift_edge_requests_total',
    help: 'Requests by route, model, status and code of the error; 499 is a client that left.',
    labelNames: ['route', 'model', 'status', 'code'],
    registers,
  });
  const seconds = new Histogram({
    name: 'sift_edge_request_duration_seconds',
    help: 'From the headers of a request to the end of its answer, streams included.',
    labelNames: ['route', 'model'],
    buckets: durationBuckets,
    registers,
  });
  const answers = countAnswers(registry);
  return (ended) => {
    const { route } = ended;
    const model = ended.model ?? '';
    requests.inc({ route, model, status: ended.status, code: ended.code ?? '' });
    seconds.observe({ route, model }, ended.durationMs / 1000);
    if (ended.stages.admitted !== undefined) answers(ended, model);
  };
}

/** Counts what admitted requests cost and how they went. */
function countAnswers(registry: Registry): (ended: EndedRequest, model: string) => void {
  const registers = [registry];
  const outcomes = new Counter({
    name: 'sift_edge_answers_total',
    help: 'Admitted requests by how they ended: done, aborted, failed or unsettled.',
    labelNames: ['model', 'outcome'],
    registers,
  });
  const stageSeconds = timeStages(registry);
  const tokens = new Counter({
    name: 'sift_edge_tokens_total',
    help: 'Billed tokens by kind: input_uncached, input_cached, output_text, output_reasoning.',
    labelNames: ['model', 'kind'],
    registers,
  });
  const money = new Counter({
    name: 'sift_edge_nano_usd_total',
    help: 'Money in nano-USD: held, by all leases together, then settled or refunded.',
    labelNames: ['model', 'kind'],
    registers,
  });
  const predictions = new Counter({
    name: 'sift_edge_prefix_predictions_total',
    help: 'What the prefix index promised against what the worker found: hit, missed, unforeseen, none.',
    labelNames: ['model', 'result'],
    registers,
  });
  return (ended, model) => {
    outcomes.inc({ model, outcome: ended.outcome ?? '' });
    stageSeconds(ended, model);
    const held = ended.heldNanoUsd ?? 0;
    money.inc({ model, kind: 'held' }, held);
    if (ended.costNanoUsd !== null) {
      money.inc({ model, kind: 'settled' }, ended.costNanoUsd);
      money.inc({ model, kind: 'refunded' }, held - ended.costNanoUsd);
    }
    const { usage } = ended;
    if (usage === null) return;
    tokens.inc({ model, kind: 'input_uncached' }, usage.inputUncached);
    tokens.inc({ model, kind: 'input_cached' }, usage.inputCached ?? 0);
    tokens.inc({ model, kind: 'output_text' }, usage.outputText);
    tokens.inc({ model, kind: 'output_reasoning' }, usage.outputReasoning);
    predictions.inc({ model, result: predictionOf(ended, usage.inputCached ?? 0) });
  };
}

function predictionOf(ended: EndedRequest, cachedTokens: number): string {
  if ((ended.predictedCachedBytes ?? 0) > 0) return cachedTokens > 0 ? 'hit' : 'missed';
  return cachedTokens > 0 ? 'unforeseen' : 'none';
}

function timeStages(registry: Registry): (ended: EndedRequest, model: string) => void {
  const registers = [registry];
  const firstToken = new Histogram({
    name: 'sift_edge_time_to_first_token_seconds',
    help: 'From the headers of a request to the first event of its worker.',
    labelNames: ['model'],
    buckets: firstTokenBuckets,
    registers,
  });
  const queue = new Histogram({
    name: 'sift_edge_queue_seconds',
    help: 'From the admission of a request to its turn at a worker.',
    labelNames: ['model'],
    buckets: queueBuckets,
    registers,
  });
  return ({ stages }, model) => {
    const { admitted, placed, began } = stages;
    if (began !== undefined) firstToken.observe({ model }, began / 1000);
    if (admitted === undefined || placed === undefined) return;
    queue.observe({ model }, (placed - admitted) / 1000);
  };
}

function readFleet(registry: Registry, fleet: FleetReader): void {
  addGauge(registry, {
    name: 'sift_edge_requests_waiting',
    help: 'Requests that wait in front of the workers.',
    collect: (gauge) => gauge.set(fleet.waitingRequests()),
  });
  addGauge(registry, {
    name: 'sift_edge_workers',
    help: 'Workers by state: ready, draining, lost or failing.',
    labelNames: ['state'],
    async collect(gauge) {
      const workers = await fleet.status();
      for (const state of ['ready', 'draining', 'lost', 'failing'] as const) {
        gauge.set({ state }, workers.filter((worker) => worker.state === state).length);
      }
    },
  });
  addGauge(registry, {
    name: 'sift_edge_worker_slots',
    help: 'Answers that a worker is given at a time.',
    labelNames: ['worker'],
    async collect(gauge) {
      gauge.reset();
      for (const { id, slots } of await fleet.status()) gauge.set({ worker: id }, slots);
    },
  });
  addGauge(registry, {
    name: 'sift_edge_worker_slots_in_flight',
    help: 'Answers under way at a worker.',
    labelNames: ['worker'],
    async collect(gauge) {
      gauge.reset();
      for (const { id, slotsInFlight } of await fleet.status()) {
        gauge.set({ worker: id }, slotsInFlight);
      }
    },
  });
}

function addGauge<Label extends string>(
  registry: Registry,
  options: {
    readonly name: string;
    readonly help: string;
    readonly labelNames?: readonly Label[];
    readonly collect: (gauge: Gauge<Label>) => void | Promise<void>;
  },
): void {
  const { name, help, labelNames = [], collect } = options;
  const gauge: Gauge<Label> = new Gauge({
    name,
    help,
    labelNames,
    registers: [],
    collect: () => collect(gauge),
  });
  registry.registerMetric(gauge);
}
