/**
 * The record of a request, which the access log, the metrics and the trace are told once it is
 * over. Nothing that was said in it is here. A stage is reached at most once.
 */
import type { RequestTrace } from '../../infra/tracing/tracing.ts';
import type { EndedRequest, HttpFacts, RequestFacts, Stage } from './ended-request.ts';
import { spanOf } from './request-span.ts';

const unknown: RequestFacts = {
  tenant: null,
  keyId: null,
  model: null,
  alias: null,
  stream: null,
  worker: null,
  code: null,
  outcome: null,
  usage: null,
  heldNanoUsd: null,
  costNanoUsd: null,
  predictedCachedBytes: null,
};

/** Is told of each request that is over. */
export type Observe = (ended: EndedRequest) => void;

/** Follows one request. It is over once its answer has been given and its hold is settled. */
export class RequestRecord {
  readonly #observe: Observe;
  readonly #startedAtMs: number;
  readonly #trace: RequestTrace | null;
  readonly #start = performance.now();
  #stages: Partial<Record<Stage, number>> = {};
  #facts = unknown;
  #http: HttpFacts | null = null;
  /** The answer is to be given yet, and perhaps a hold is to be settled. */
  #pending = 1;

  /** @param trace null when it is not traced. */
  constructor(observe: Observe, startedAtMs: number, trace: RequestTrace | null) {
    this.#observe = observe;
    this.#startedAtMs = startedAtMs;
    this.#trace = trace;
  }

  /** Headers under which the worker's spans are part of its trace. */
  get traceHeaders(): Readonly<Record<string, string>> {
    return this.#trace?.headers ?? {};
  }

  note(facts: Partial<RequestFacts>): void {
    this.#facts = { ...this.#facts, ...facts };
  }

  reach(stage: Stage): void {
    this.#stages[stage] ??= performance.now() - this.#start;
  }

  /**
   * A hold was opened: the request is not over before `settled`. One that no worker of a model took
   * is admitted again for the next model.
   */
  admitted(): void {
    const { authenticated } = this.#stages;
    this.#stages = { ...(authenticated !== undefined && { authenticated }) };
    this.reach('admitted');
    this.#pending++;
  }

  settled(facts: Partial<RequestFacts>): void {
    this.note(facts);
    this.reach('settled');
    this.#endOne();
  }

  answered(http: HttpFacts): void {
    this.#http = http;
    this.#endOne();
  }

  #endOne(): void {
    this.#pending--;
    if (this.#pending > 0 || this.#http === null) return;
    const ended = {
      ...this.#facts,
      ...this.#http,
      startedAtMs: this.#startedAtMs,
      durationMs: performance.now() - this.#start,
      stages: this.#stages,
    };
    this.#trace?.end(spanOf(ended));
    this.#observe(ended);
  }
}
