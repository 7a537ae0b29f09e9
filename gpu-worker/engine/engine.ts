/**
 * The engine: requests come in, steps are computed, events go out. One step is
 *
 *   plan      which sequences compute how many tokens (scheduler.ts, block-manager.ts)
 *   forward   all their rows in one batch; writes their cache entries (batch.ts, model/)
 *   sample    scores of prompt tokens, and a token for each sequence whose tokens are all computed
 *             (sample-step.ts)
 *   accept    the rows are computed, full blocks become prefixes that others may share; text, stop
 *             conditions, events (generation.ts, output.ts)
 *
 * It knows nothing of threads or time passing: engine-thread.ts calls it in a loop on a thread of
 * its own, and engine-handle.ts is that thread as the HTTP side sees it.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Batch } from '../backend/batch.ts';
import type { Model } from '../model/model.ts';
import { BatchBuilder } from './batch.ts';
import { BlockManager } from './block-manager.ts';
import { refusal, refusalOf } from './refusal.ts';
import { Constraints } from './constraint.ts';
import { Drafter } from './drafter.ts';
import { Generation } from './generation.ts';
import type { Choice } from './generation.ts';
import type { TokenText } from './output.ts';
import { nothingCounted } from './request.ts';
import type {
  EngineCounters,
  EngineError,
  EngineEvent,
  EngineLoad,
  EngineRequest,
  FinishReason,
} from './request.ts';
import { StepSampler } from './sample-step.ts';
import type { Sample } from './sample-step.ts';
import { confirmsDraft, knownCount } from './scheduled-rows.ts';
import type { ScheduledRows } from './scheduled-rows.ts';
import { Scheduler } from './scheduler.ts';
import { Sequence } from './sequence.ts';

export interface EngineLimits {
  /** Tokens of one step, decode and prefill together; at most `model.limits.rowsMax`. */
  readonly stepTokensMax: number;
  /** The same of a step in which some sequence decodes; `stepTokensMax` unless given. */
  readonly mixedTokensMax?: number;
  readonly sequencesMax: number;
  /** Sequences that wait; every choice of a request counts. */
  readonly waitingMax: number;
  /** Tokens drafted ahead of each sequence that decodes; none unless given. */
  readonly draftTokensMax?: number;
}

export interface EngineServices {
  readonly model: Model;
  readonly tokenText: TokenText;
  /** Any of these ends a choice. */
  readonly endTokens: readonly number[];
  /** A seed for a request that has none: an integer of at most 48 bits. */
  readonly drawSeed: () => number;
  readonly nowMs: () => number;
}

/** Guess of the speed before anything was computed, for Retry-After. */
const initialTokensPerSecond = 1000;
const retryAfterSecondsMax = 60;

export class EngineLoop {
  readonly #services: EngineServices;
  readonly #limits: EngineLimits;
  readonly #blocks: BlockManager;
  readonly #scheduler: Scheduler;
  readonly #batches: BatchBuilder;
  readonly #sampler: StepSampler;
  readonly #drafter: Drafter | null;
  readonly #constraints: Constraints;
  readonly #generations = new Map<string, Generation>();
  readonly #counters: { -readonly [Name in keyof EngineCounters]: number };
  /** The step that is planned and not finished. */
  #step: { planned: readonly ScheduledRows[]; startMs: number } | null = null;
  /** Events of the step or call in progress. */
  #events: EngineEvent[] = [];
  #nextSerial = 0;
  #tokensPerSecond = initialTokensPerSecond;

  constructor(services: EngineServices, limits: EngineLimits) {
    const { model } = services;
    assert(limits.stepTokensMax <= model.limits.rowsMax, 'a step fits the model’s batch');
    this.#services = services;
    this.#limits = limits;
    this.#blocks = new BlockManager({ blocks: model.blocks });
    this.#scheduler = new Scheduler(this.#blocks, {
      stepTokensMax: limits.stepTokensMax,
      mixedTokensMax: limits.mixedTokensMax ?? limits.stepTokensMax,
      sequencesMax: limits.sequencesMax,
      scoredRowsMax: model.limits.logitRowsMax,
    });
    this.#batches = new BatchBuilder({ rowsMax: limits.stepTokensMax });
    this.#sampler = new StepSampler(model);
    const draftsMax = limits.draftTokensMax ?? 0;
    this.#drafter = draftsMax === 0 ? null : new Drafter(model, limits.stepTokensMax, draftsMax);
    this.#constraints = new Constraints({ ...services, vocabSize: model.vocabSize });
    this.#counters = { ...nothingCounted };
  }

  /** Nothing is in flight: a step would do nothing. */
  get isIdle(): boolean {
    return this.#generations.size === 0;
  }

  /**
   * Queues the requests, or refuses all of them with an `end` event each: prompts that were sent
   * together have their places before any of them runs.
   */
  submit(...requests: readonly EngineRequest[]): EngineEvent[] {
    const error = this.refusalOf(requests);
    if (error !== null) return this.refuse(requests, error);
    for (const request of requests) this.#queue(request);
    return [];
  }

  #queue(request: EngineRequest): void {
    const { tokenText, endTokens, drawSeed, nowMs } = this.#services;
    const constraints = this.#constraints;
    const seed = request.sampling.seed ?? drawSeed();
    const serial = this.#nextSerial;
    this.#nextSerial += request.choices;
    const generation = new Generation(request, {
      tokenText,
      endTokens,
      constraints,
      serial,
      seed,
      submittedMs: nowMs(),
    });
    this.#generations.set(request.id, generation);
    // The prompt is computed once: the other choices find it in the prefix cache.
    for (const { sequence } of generation.choices) {
      this.#scheduler.add(sequence, sequence.choice === 0 ? 'waiting' : 'held');
    }
  }

  /** Ends the request's choices as `aborted` and frees their blocks; an unknown id is no error. */
  abort(id: string): EngineEvent[] {
    const generation = this.#generations.get(id);
    if (generation === undefined) return [];
    for (const choice of generation.choices) {
      if (!choice.isFinished)
        this.#finish(generation, choice, { reason: 'aborted', stopMatch: null });
    }
    this.#counters.requestsAborted++;
    this.#end(generation, null);
    return this.#takeEvents();
  }

  abortAll(): EngineEvent[] {
    return [...this.#generations.keys()].flatMap((id) => this.abort(id));
  }

  /** Computes one step and says what came of it. */
  step(): EngineEvent[] {
    const batch = this.plan();
    if (batch === null) return [];
    this.#services.model.forward(batch);
    return this.finish();
  }

  /** The batch of the next step, which `finish` is called after; null if nothing is in flight. */
  plan(): Batch | null {
    const startMs = this.#services.nowMs();
    const planned = this.#scheduler.plan();
    assert(planned.length > 0 || this.isIdle, 'whatever is in flight proceeds');
    if (planned.length === 0) return null;
    this.#step = { planned, startMs };
    return this.#batches.build(planned);
  }

  /** Samples and accepts the rows of the planned batch, whose hidden states are computed. */
  finish(): EngineEvent[] {
    const { nowMs } = this.#services;
    const step = this.#step;
    assert(step !== null, 'a step is planned before it is finished');
    this.#step = null;
    const { planned, startMs } = step;
    this.#countPrompts(planned, startMs);
    this.#scorePrompts(planned);
    // A request whose prompt has no scores has failed by now.
    const rows = planned.filter(({ sequence }) => sequence.state === 'running');
    const tokensBefore = this.#counters.outputTokens;
    this.#accept(rows);
    const running = rows.filter(({ sequence }) => sequence.state === 'running');
    this.#drafter?.draft(running, (sequence) => this.#generationOf(sequence));

    this.#counters.steps++;
    const drawn = this.#counters.outputTokens - tokensBefore;
    const prefilled = sumOf(
      planned,
      (each) => knownCount(each) - (each.sampleRows.length > 0 ? 1 : 0),
    );
    this.#measure(prefilled + drawn, nowMs() - startMs);
    return this.#takeEvents();
  }

  load(): EngineLoad {
    const blocks = this.#blocks.counts();
    return {
      runningSequences: this.#scheduler.runningCount,
      waitingSequences: this.#scheduler.waitingCount,
      tokensInFlight: this.#scheduler.tokensInFlight(),
      blocksTotal: blocks.total,
      blocksFree: blocks.free + blocks.idle,
      blocksCached: blocks.idle,
      counters: {
        ...this.#counters,
        preemptions: this.#scheduler.preemptions,
        evictedBlocks: this.#blocks.evicted,
      },
    };
  }

  #countPrompts(step: readonly ScheduledRows[], startMs: number): void {
    for (const { sequence, count } of step) {
      const { promptReached, cachedTokens } = sequence;
      sequence.countComputed(count);
      if (sequence.choice !== 0) continue;
      this.#counters.promptTokens += sequence.promptReached - promptReached;
      if (cachedTokens !== null) continue;
      this.#counters.cachedTokens += sequence.computed;
      this.#generationOf(sequence).begin(startMs);
    }
  }

  /** Prompt logprobs: the scheduler gave the step at most `logitRowsMax` such rows. */
  #scorePrompts(step: readonly ScheduledRows[]): void {
    const { model } = this.#services;
    for (const { sequence, scoreRows } of step) {
      if (scoreRows.length === 0) continue;
      const logits = model.logits(scoreRows);
      const generation = this.#generationOf(sequence);
      for (let row = 0; row < scoreRows.length; row++) {
        const ofRow = logits.subarray(row * model.vocabSize, (row + 1) * model.vocabSize);
        if (generation.scorePrompt(ofRow)) continue;
        const message = 'the model gave no valid logits for a prompt token';
        this.#fail(generation, { kind: 'internal', message });
        break;
      }
      sequence.scored += scoreRows.length;
    }
  }

  /**
   * Makes the step count: its rows are computed, its full blocks are prefixes for others, and its
   * tokens go out. The known tokens' rows come first, then the drafts' in turn, of those sequences
   * whose last token is what was drafted. None is accepted where sampling failed.
   */
  #accept(step: readonly ScheduledRows[]): void {
    const generationOf = (sequence: Sequence): Generation => this.#generationOf(sequence);
    this.#sampler.begin(step, generationOf);
    const sampling = step.filter(({ sampleRows }) => sampleRows.length > 0);
    let samples = this.#sampler.sample(sampling, 0, generationOf);
    const failed = new Set(
      sampling.flatMap(({ sequence }, i) => (at(samples, i).kind === 'failed' ? [sequence] : [])),
    );
    for (const rows of step) {
      if (!failed.has(rows.sequence)) this.#scheduler.accept(rows.sequence, knownCount(rows));
    }
    for (const { sequence } of step) this.#announcePrompt(sequence);
    let standing = sampling;
    for (let turn = 0; standing.length > 0; turn++) {
      for (const [index, { sequence }] of standing.entries()) {
        // Another choice of the same request may have failed just now.
        if (sequence.state !== 'ended') this.#take(sequence, at(samples, index));
      }
      standing = standing.filter((rows) => confirmsDraft(rows, turn));
      for (const { sequence } of standing) this.#scheduler.accept(sequence, 1);
      this.#counters.acceptedDrafts += standing.length;
      if (standing.length > 0) {
        samples = this.#sampler.sample(standing, turn + 1, generationOf);
      }
    }
    for (const { sequence, drafts } of step) {
      this.#counters.draftTokens += drafts.length;
      sequence.drafts = [];
    }
  }

  /** Tells how far the prompt is, and lets the other choices go once it is computed. */
  #announcePrompt(sequence: Sequence): void {
    if (sequence.choice !== 0) return;
    const generation = this.#generationOf(sequence);
    if (generation.promptDone) return;
    if (sequence.promptReached < sequence.promptLength) {
      this.#events.push(generation.prefillEvent());
      return;
    }
    this.#events.push(generation.promptEvent());
    if (generation.request.outputTokensMax > 0) {
      for (const other of generation.choices.slice(1)) this.#scheduler.unhold(other.sequence);
      return;
    }
    for (const choice of generation.choices) {
      this.#finish(generation, choice, { reason: 'length', stopMatch: null });
    }
    this.#complete(generation);
  }

  #take(sequence: Sequence, sample: Sample): void {
    const generation = this.#generationOf(sequence);
    if (sample.kind === 'failed') {
      this.#fail(generation, sample.error);
      return;
    }
    const choice = generation.choiceOf(sequence);
    const [event, { finish }] = generation.take(choice, sample.token, sample.logprob);
    this.#counters.outputTokens++;
    this.#events.push(event);
    if (finish === null) return;
    this.#finish(generation, choice, finish);
    if (generation.isFinished) this.#complete(generation);
  }

  #finish(
    generation: Generation,
    choice: Choice,
    finish: { reason: FinishReason; stopMatch: string | number | null },
  ): void {
    this.#scheduler.end(choice.sequence);
    this.#events.push(generation.finishedEvent(choice, finish));
  }

  #complete(generation: Generation): void {
    this.#counters.requestsFinished++;
    this.#end(generation, null);
  }

  #fail(generation: Generation, error: Pick<EngineError, 'kind' | 'message'>): void {
    for (const { sequence, isFinished } of generation.choices) {
      if (!isFinished) this.#scheduler.end(sequence);
    }
    this.#end(generation, { ...error, retryAfterSeconds: null });
  }

  #end(generation: Generation, error: EngineError | null): void {
    this.#generations.delete(generation.request.id);
    this.#events.push(generation.endEvent(error));
  }

  /** Tokens of the request's prompt that the prefix cache has. */
  cachedTokens(request: EngineRequest): number {
    const { table, tokens, reusable } = new Sequence(request, { choice: 0, serial: 0 });
    return this.#blocks.match(table, tokens, reusable).blocks * blockTokens;
  }

  /** Counts the requests as refused; an `end` event for each. */
  refuse(requests: readonly EngineRequest[], error: EngineError): EngineEvent[] {
    this.#counters.requestsRefused += requests.length;
    return requests.map((request) => refusal(request, error));
  }

  /** The reason to refuse the requests, or null if all can be queued. */
  refusalOf(requests: readonly EngineRequest[]): EngineError | null {
    return refusalOf(requests, {
      model: this.#services.model,
      isInFlight: (id) => this.#generations.has(id),
      waitingCount: this.#scheduler.waitingCount,
      waitingMax: this.#limits.waitingMax,
      retryAfterSeconds: () => this.#retryAfterSeconds(),
    });
  }

  /** Tells when half of the work in flight will be done, at the speed of the last steps. */
  #retryAfterSeconds(): number {
    const seconds = this.#scheduler.tokensInFlight() / 2 / this.#tokensPerSecond;
    return Math.min(retryAfterSecondsMax, Math.max(1, Math.ceil(seconds)));
  }

  #measure(tokens: number, elapsedMs: number): void {
    const latest = (tokens * 1000) / Math.max(elapsedMs, 0.001);
    this.#tokensPerSecond += (latest - this.#tokensPerSecond) / 16;
  }

  #generationOf(sequence: Sequence): Generation {
    const generation = this.#generations.get(sequence.requestId);
    assert(generation !== undefined, 'a sequence in flight belongs to a request in flight');
    return generation;
  }

  #takeEvents(): EngineEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

function sumOf<T>(all: readonly T[], countOf: (each: T) => number): number {
  return all.reduce((sum, each) => sum + countOf(each), 0);
}
