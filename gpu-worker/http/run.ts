/**
 * One HTTP request's way through the engine: journalled, measured, and stopped when its client
 * leaves. The routes see events alone. Whatever happens, the journal's final line is written once,
 * with the engine's own count, before the caller sees the end.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import { nothingComputed } from '../engine/request.ts';
import type { EngineError, EngineEvent, EngineRequest, EngineUsage } from '../engine/request.ts';
import { ApiError } from './api-error.ts';
import type { ServedModel } from './lifecycle.ts';
import type { PromptTimes, RequestContext, RunRecord } from './request-context.ts';
import type { WorkerServices } from './worker-services.ts';
import { sumUsage } from './response/wire-usage.ts';

/** The engine's events, but choices count over all prompts and usage is the whole request's. */
export type RunEvent =
  | (Extract<EngineEvent, { kind: 'prompt' }> & { readonly prompt: number })
  | Extract<EngineEvent, { kind: 'output' | 'finished' }>
  | { readonly kind: 'end'; readonly usage: EngineUsage };

export interface RunOptions {
  readonly model: ServedModel;
  readonly context: RequestContext;
  /** One per prompt, with ids of their own, equal in `choices`. */
  readonly requests: readonly EngineRequest[];
  /** Named in the error if the engine has no room for the prompt. */
  readonly promptParam: 'messages' | 'prompt';
}

/**
 * Yields until `end`, which comes after the final usage is on disk.
 * @throws ApiError from the first `next()` if the engine refuses, or if the id is in use; from a
 * later one if the engine fails.
 */
export async function* runRequest(
  services: WorkerServices,
  { model, context, requests, promptParam }: RunOptions,
): AsyncGenerator<RunEvent, void> {
  const { journal } = services;
  refuseTooMany(model, requests);
  if (!journal.begin({ id: context.id, model: model.id, stop: context.stop })) {
    const found = 'is running, or was cancelled before it came';
    throw new ApiError('request_id_in_use', `A request with the id ${context.id} ${found}.`);
  }
  const indices = new Map(requests.map(({ id }, index) => [id, index]));
  const indexOf = (id: string): number =>
    indices.get(id) ?? assert.fail('the engine speaks of a request that it was not given');
  // The counts as the engine computes them, and those of the events that the reader has taken.
  const computed = requests.map(() => nothingComputed);
  const taken = requests.map(() => nothingComputed);
  const choicesEach = at(requests, 0).choices;
  const times = watchTimes(services, context);
  let outcome: RunRecord['outcome'] = 'aborted';
  let unfinished = requests.length * choicesEach;

  const answers = model.engine.submit(requests, {
    signal: context.stop.signal,
    onUsage(id, usage) {
      computed[indexOf(id)] = usage;
      journal.update(context.id, sumUsage(computed));
    },
  });
  const events = answers[Symbol.asyncIterator]();

  const take = (event: EngineEvent): RunEvent | null => {
    const index = indexOf(event.id);
    taken[index] = event.usage;
    times.watch(event);
    if (event.kind === 'finished' && event.reason !== 'aborted') unfinished--;
    switch (event.kind) {
      case 'prefill':
        return null;
      case 'prompt':
        return { ...event, usage: sumUsage(taken), prompt: index };
      case 'output':
      case 'finished':
        return { ...event, usage: sumUsage(taken), choice: index * choicesEach + event.choice };
      case 'end':
        if (event.error) throw toApiError(event.error, { model, promptParam, ...requests[index] });
        return null;
    }
  };

  try {
    for (let next = await events.next(); !next.done; next = await events.next()) {
      const event = take(next.value);
      if (event) yield event;
    }
    if (unfinished === 0) outcome = 'done';
  } catch (error) {
    outcome = 'failed';
    throw error;
  } finally {
    // Left early, by an error or because the reader stopped reading: the engine still has to say
    // how many tokens it made until it stopped. After the events' own end this loop does nothing.
    if (outcome !== 'done') context.stop.abort();
    while (!(await events.next()).done);
    const usage = sumUsage(computed);
    const isJournalled = await journal.finish(context.id, { outcome, usage });
    context.run = { outcome, usage, ...times.found(), isJournalled };
  }
  yield { kind: 'end', usage: sumUsage(computed) };
}

/** @throws ApiError 400 for more answers than could ever have a place in the queue. */
function refuseTooMany({ engine }: ServedModel, requests: readonly EngineRequest[]): void {
  const { waitingMax } = engine.description.plan;
  const choicesEach = at(requests, 0).choices;
  const answers = requests.length * choicesEach;
  if (answers <= waitingMax) return;
  throw new ApiError(
    'invalid_value',
    `${requests.length} prompts with ${choicesEach} choices each are ${answers} answers; ` +
      `one request may have at most ${waitingMax}.`,
    { param: requests.length > 1 ? 'prompt' : 'n' },
  );
}

interface Times {
  watch(event: EngineEvent): void;
  found(): Pick<RunRecord, 'firstTokenMs' | 'prompt'>;
}

/** Measures the time to the first token, and between tokens of a choice; made at submission. */
function watchTimes({ clock, metrics }: WorkerServices, { startedMs }: RequestContext): Times {
  const submittedMs = clock.steadyMs() - startedMs;
  let firstTokenMs: number | null = null;
  let prompt: PromptTimes | null = null;
  const lastMs = new Map<string, number>();
  return {
    found: () => ({ firstTokenMs, prompt }),
    watch(event) {
      if (event.kind === 'prompt') {
        const computedMs = clock.steadyMs() - startedMs;
        prompt ??= { submittedMs, begunMs: submittedMs + event.queuedMs, computedMs };
      }
      if (event.kind !== 'output' || event.tokens.length === 0) return;
      const nowMs = clock.steadyMs();
      if (firstTokenMs === null) {
        firstTokenMs = nowMs - startedMs;
        metrics.firstToken(firstTokenMs / 1000);
      }
      const choice = `${event.id} ${event.choice}`;
      const previousMs = lastMs.get(choice);
      if (previousMs !== undefined) {
        metrics.nextTokens({
          seconds: (nowMs - previousMs) / 1000 / event.tokens.length,
          tokens: event.tokens.length,
        });
      }
      lastMs.set(choice, nowMs);
    },
  };
}

function toApiError(
  error: EngineError,
  run: Pick<RunOptions, 'model' | 'promptParam'> & Partial<EngineRequest>,
): ApiError {
  switch (error.kind) {
    case 'too-long': {
      const { contextLength, plan } = run.model.engine.description;
      // The last output token is never stored.
      const cacheTokens = plan.blocks * plan.blockTokens + 1;
      const overflow = {
        prompt_tokens: run.promptTokens?.length ?? 0,
        output_tokens: run.outputTokensMax ?? null,
        context_tokens: Math.min(contextLength, cacheTokens),
      };
      return new ApiError('context_length_exceeded', error.message, {
        param: run.promptParam,
        overflow,
      });
    }
    case 'busy':
      return new ApiError('engine_busy', error.message, {
        headers: { 'retry-after': String(Math.ceil(error.retryAfterSeconds ?? 1)) },
      });
    case 'invalid':
      return new ApiError('invalid_value', error.message);
    case 'internal':
      return new ApiError('internal_error', error.message);
    default:
      assert.fail(`unknown engine error ${String(error.kind)}`);
  }
}
