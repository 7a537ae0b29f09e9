/**
 * The engine: requests come in, steps are computed, events go out. One step is
 *
 *   scheduler.plan    which sequences compute how many tokens (scheduler.ts, block-manager.ts)
 *   model.forward     all their rows in one batch; writes their cache entries (batch.ts, model/)
 *   scheduler.advance full blocks become prefixes that others may share
 *   score, sample     logits of the rows that want them; one token for each sequence whose tokens
 *                     are all computed (logprobs.ts, sampler.ts)
 *   take              text, stop conditions, events (generation.ts, output.ts)
 *
 * It knows nothing of threads or time passing: engine-thread.ts calls it in a loop on a thread of
 * its own, and engine-handle.ts is that thread as the HTTP side sees it.
 */
import assert from 'node:assert/strict';
import type { Model } from '../model/model.ts';
import { BatchBuilder } from './batch.ts';
import { BlockManager } from './block-manager.ts';
import { checkRequest } from './check-request.ts';
import { Constraints } from './constraint.ts';
import { Generation } from './generation.ts';
import type { Choice } from './generation.ts';
import type { TokenText } from './output.ts';
import { uniform } from './random.ts';
import { nothingComputed } from './request.ts';
import type {
  EngineCounters,
  EngineError,
  EngineEvent,
  EngineLoad,
  EngineRequest,
  FinishReason,
} from './request.ts';
import { createSamplerScratch, drawsFromTheRow, sampleToken } from './sampler.ts';
import type { SamplerScratch } from './sampler.ts';
import { Scheduler, scoredRows } from './scheduler.ts';
import type { Sequence } from './sequence.ts';

export interface EngineLimits {
  /** Tokens of one step, decode and prefill together; at most `model.limits.rowsMax`. */
  readonly stepTokensMax: number;
  /** The same of a step in which some sequence decodes; `stepTokensMax` unless given. */
  readonly mixedTokensMax?: number;
  readonly sequencesMax: number;
  /** Sequences that wait; every choice of a request counts. */
  readonly waitingMax: number;
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
  readonly #scratch: SamplerScratch;
  readonly #constraints: Constraints;
  readonly #generations = new Map<string, Generation>();
  readonly #counters: { -readonly [Name in keyof EngineCounters]: number };
  /** Of the step or call in progress. */
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
    this.#scratch = createSamplerScratch(model.vocabSize);
    this.#constraints = new Constraints({ ...services, vocabSize: model.vocabSize });
    this.#counters = {
      steps: 0,
      promptTokens: 0,
      cachedTokens: 0,
      outputTokens: 0,
      preemptions: 0,
      evictedBlocks: 0,
      requestsFinished: 0,
      requestsAborted: 0,
      requestsRefused: 0,
    };
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
    const error = this.#refusal(requests);
    if (error !== null) {
      this.#counters.requestsRefused += requests.length;
      return requests.map((request) => refusal(request, error));
    }
    for (const request of requests) this.#queue(request);
    return [];
  }

  #queue(request: EngineRequest): void {
    const { tokenText, endTokens, drawSeed } = this.#services;
    const constraints = this.#constraints;
    const seed = request.sampling.seed ?? drawSeed();
    const serial = this.#nextSerial;
    this.#nextSerial += request.choices;
    const generation = new Generation(request, { tokenText, endTokens, constraints, serial, seed });
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
      if (!choice.isFinished) this.#finish(generation, choice, { reason: 'aborted' });
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
    const { model, nowMs } = this.#services;
    const startMs = nowMs();
    const chosen = this.#scheduler.plan();
    assert(chosen.length > 0 || this.isIdle, 'whatever is in flight proceeds');
    if (chosen.length === 0) return [];

    const batch = this.#batches.build(chosen);
    model.forward(batch);
    const spans = rowSpans(chosen);
    this.#advance(chosen);
    this.#scorePrompts(spans);
    this.#announcePrompts(spans);
    this.#sample(spans);

    this.#counters.steps++;
    this.#measure(batch.tokens.length, nowMs() - startMs);
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

  // ---- the parts of a step -----------------------------------------------------------------

  #advance(chosen: readonly Sequence[]): void {
    const prompts = chosen.filter(({ choice }) => choice === 0);
    const counted = (): { reached: number; cached: number } => ({
      reached: sumOf(prompts, ({ promptReached }) => promptReached),
      cached: sumOf(prompts, ({ cachedTokens }) => cachedTokens ?? 0),
    });
    const before = counted();
    this.#scheduler.advance(chosen);
    const after = counted();
    this.#counters.promptTokens += after.reached - before.reached;
    this.#counters.cachedTokens += after.cached - before.cached;
  }

  /** Prompt logprobs: the scheduler gave the step at most `logitRowsMax` such rows. */
  #scorePrompts(spans: readonly RowSpan[]): void {
    for (const span of spans) {
      if (span.scoredRows.length === 0) continue;
      const { model } = this.#services;
      const logits = model.logits(span.scoredRows);
      const generation = this.#generationOf(span.sequence);
      for (let row = 0; row < span.scoredRows.length; row++) {
        if (generation.scorePrompt(rowOf(logits, row, model.vocabSize))) continue;
        this.#fail(generation, { message: 'the model gave no valid logits for a prompt token' });
        break;
      }
      span.sequence.scored += span.scoredRows.length;
    }
  }

  #announcePrompts(spans: readonly RowSpan[]): void {
    for (const { sequence } of spans) {
      if (sequence.state === 'ended' || sequence.choice !== 0) continue;
      const generation = this.#generationOf(sequence);
      if (generation.promptDone) continue;
      if (sequence.pending > 0) {
        this.#events.push(generation.prefillEvent());
        continue;
      }
      const [, ...others] = generation.choices;
      this.#events.push(generation.promptEvent());
      if (generation.request.outputTokensMax > 0) {
        for (const other of others) this.#scheduler.unhold(other.sequence);
      } else {
        for (const choice of generation.choices) {
          this.#finish(generation, choice, { reason: 'length' });
        }
        this.#counters.requestsFinished++;
        this.#end(generation, null);
      }
    }
  }

  /** Gives every sequence whose tokens are all computed its next one. */
  #sample(spans: readonly RowSpan[]): void {
    const { model } = this.#services;
    const ready = spans.filter(({ sequence }) => isReady(sequence));
    for (let start = 0; start < ready.length; start += model.limits.logitRowsMax) {
      const slice = ready.slice(start, start + model.limits.logitRowsMax);
      const [plain, others] = partition(slice, ({ sequence }) =>
        needsNoLogits(this.#generationOf(sequence).request),
      );
      const drawn = this.#drawOnBackend(plain);
      const logits = others.length === 0 ? null : model.logits(lastRows(others));
      let row = 0;
      for (const span of slice) {
        const { sequence } = span;
        const own =
          logits === null || drawn.has(span) ? null : rowOf(logits, row++, model.vocabSize);
        // Another choice of the same request may have failed just now.
        if (sequence.state === 'ended') continue;
        if (own === null) this.#take(sequence, drawn.get(span) ?? null, null);
        else this.#drawFrom(own, sequence);
      }
    }
  }

  #drawOnBackend(spans: readonly RowSpan[]): Map<RowSpan, number | null> {
    if (spans.length === 0) return new Map();
    const draws = spans.map(({ sequence }) => {
      const { sampling } = this.#generationOf(sequence).request;
      return { ...sampling, unit: sampling.temperature === 0 ? 0 : this.#unitOf(sequence) };
    });
    const tokens = this.#services.model.sample(lastRows(spans), draws);
    return new Map(spans.map((span, i) => [span, tokens[i] ?? null]));
  }

  #drawFrom(logits: Float32Array, sequence: Sequence): void {
    const generation = this.#generationOf(sequence);
    const choice = generation.choices[sequence.choice];
    const allowed = choice.constraint?.allowed() ?? null;
    if (allowed === null && choice.constraint !== null) {
      const reason = 'the answer can be read in too many ways by the schema that it has to fit';
      this.#fail(generation, { kind: 'invalid', message: reason });
      return;
    }
    const context = { history: generation.historyOf(choice), allowed };
    const draw = (): number => this.#unitOf(sequence);
    const { sampling } = generation.request;
    this.#take(sequence, sampleToken(logits, sampling, context, draw, this.#scratch), logits);
  }

  #unitOf(sequence: Sequence): number {
    const { seed } = this.#generationOf(sequence);
    return uniform({ seed: seed + sequence.choice, position: sequence.outputTokens });
  }

  /** `logits` where the request asks about them. */
  #take(sequence: Sequence, token: number | null, logits: Float32Array | null): void {
    const generation = this.#generationOf(sequence);
    if (token === null) {
      this.#fail(generation, { message: 'the model gave no valid logits for the next token' });
      return;
    }
    const choice = generation.choices[sequence.choice];
    const [event, { finish }] = generation.take(choice, token, logits);
    this.#counters.outputTokens++;
    this.#events.push(event);
    if (finish === null) return;
    this.#finish(generation, choice, finish);
    if (!generation.isFinished) return;
    this.#counters.requestsFinished++;
    this.#end(generation, null);
  }

  // ---- the end of a request ----------------------------------------------------------------

  #finish(
    generation: Generation,
    choice: Choice,
    finish: { reason: FinishReason; stopMatch?: string | number | null },
  ): void {
    const { reason, stopMatch = null } = finish;
    this.#scheduler.end(choice.sequence);
    this.#events.push(generation.finishedEvent(choice, { reason, stopMatch }));
  }

  #fail(
    generation: Generation,
    { kind = 'internal', message }: { kind?: 'internal' | 'invalid'; message: string },
  ): void {
    for (const { sequence, isFinished } of generation.choices) {
      if (!isFinished) this.#scheduler.end(sequence);
    }
    this.#end(generation, { kind, message, retryAfterSeconds: null });
  }

  #end(generation: Generation, error: EngineError | null): void {
    this.#generations.delete(generation.request.id);
    this.#events.push(generation.endEvent(error));
  }

  #refusal(requests: readonly EngineRequest[]): EngineError | null {
    const { vocabSize, contextLength, blocks } = this.#services.model;
    for (const request of requests) {
      const error = checkRequest(request, { vocabSize, contextLength, blocks });
      if (error !== null) return error;
      if (this.#generations.has(request.id)) {
        const message = `a request with id ${request.id} is in flight already`;
        return { kind: 'invalid', message, retryAfterSeconds: null };
      }
    }
    const { waitingMax } = this.#limits;
    const choices = sumOf(requests, (request) => request.choices);
    if (choices > waitingMax) {
      const message = `${choices} choices are more than may wait at once (${waitingMax})`;
      return { kind: 'invalid', message, retryAfterSeconds: null };
    }
    if (this.#scheduler.waitingCount + choices > waitingMax) {
      const message = `the queue is full: ${this.#scheduler.waitingCount} of ${waitingMax} places`;
      return { kind: 'busy', message, retryAfterSeconds: this.#retryAfterSeconds() };
    }
    return null;
  }

  /** When half of the work in flight will be done, at the speed of late. */
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

/** Where a sequence stands in the batch. */
interface RowSpan {
  readonly sequence: Sequence;
  readonly lastRow: number;
  /** Rows whose logits score the next prompt token. */
  readonly scoredRows: Int32Array;
}

/** To be asked before the sequences advance. */
function rowSpans(chosen: readonly Sequence[]): RowSpan[] {
  let firstRow = 0;
  return chosen.map((sequence) => {
    const scoredCount = sequence.scoresPrompt ? scoredRows(sequence, sequence.scheduled) : 0;
    const firstScored = firstRow + Math.max(0, sequence.scored - sequence.computed);
    firstRow += sequence.scheduled;
    return {
      sequence,
      lastRow: firstRow - 1,
      scoredRows: Int32Array.from({ length: scoredCount }, (_, index) => firstScored + index),
    };
  });
}

function isReady(sequence: Sequence): boolean {
  return sequence.state === 'running' && sequence.pending === 0;
}

/** Whether nobody sees or changes the logits between the model and the draw. */
function needsNoLogits({ logprobs, sampling, grammar }: EngineRequest): boolean {
  return logprobs === null && grammar === null && drawsFromTheRow(sampling);
}

function lastRows(spans: readonly RowSpan[]): Int32Array {
  return Int32Array.from(spans, (span) => span.lastRow);
}

function partition<T>(all: readonly T[], isFirst: (each: T) => boolean): [T[], T[]] {
  return [all.filter((each) => isFirst(each)), all.filter((each) => !isFirst(each))];
}

function sumOf<T>(all: readonly T[], countOf: (each: T) => number): number {
  return all.reduce((sum, each) => sum + countOf(each), 0);
}

function rowOf(logits: Float32Array, row: number, vocabSize: number): Float32Array {
  return logits.subarray(row * vocabSize, (row + 1) * vocabSize);
}

function refusal({ id }: EngineRequest, error: EngineError): EngineEvent {
  return { kind: 'end', id, usage: nothingComputed, error };
}
