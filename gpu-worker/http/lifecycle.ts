/**
 * Keeps the worker's state, one of four, and what it serves. Requests are taken only when it is
 * ready; draining lets the ones in flight finish.
 */
import type { Engine } from '../engine/request.ts';
import { notReady } from './api-error.ts';
import type { SamplingDefaults } from './request/sampling-defaults.ts';
import type { TextReader } from './text/text-model.ts';

/** The one model of a worker and everything that turns requests into its tokens and back. */
export interface ServedModel {
  readonly id: string;
  readonly ownedBy: string;
  /** Unix seconds, shown by /v1/models. */
  readonly created: number;
  /** Name or hash of the tokenizer; prompts of equal text and tokenizer have equal tokens. */
  readonly tokenizerId: string;
  readonly engine: Engine;
  readonly text: TextReader;
  readonly samplingDefaults: SamplingDefaults;
}

export type WorkerState =
  | { readonly status: 'starting'; readonly reason: string; readonly model: null }
  | { readonly status: 'ready'; readonly reason: null; readonly model: ServedModel }
  | { readonly status: 'draining'; readonly reason: string; readonly model: ServedModel | null }
  | { readonly status: 'failed'; readonly reason: string; readonly model: ServedModel | null };

export interface Lifecycle {
  state(): WorkerState;
  /** The model, if requests may be sent to it. @throws ApiError 503 */
  modelForRequest(): ServedModel;
  /** Says what the start is at, such as `loading weights`. */
  starting(reason: string): void;
  serve(model: ServedModel): void;
  fail(reason: string): void;
  drain(): void;
}

/** @param obstacle why a worker that is ready can't take requests just now; null: it can */
export function createLifecycle(obstacle: () => string | null = () => null): Lifecycle {
  let state: WorkerState = { status: 'starting', reason: 'the model is not loaded', model: null };

  function current(): WorkerState {
    const failure = state.model?.engine.failure() ?? null;
    if (failure !== null && state.status !== 'failed') {
      state = { status: 'failed', reason: `the engine failed: ${failure}`, model: state.model };
    }
    return state;
  }

  /** Gives the state as `current` does; a fault that may pass by itself is not kept. */
  function now(): WorkerState {
    const lasting = current();
    const reason = lasting.status === 'ready' ? obstacle() : null;
    return reason === null ? lasting : { status: 'failed', reason, model: lasting.model };
  }

  return {
    state: now,
    modelForRequest() {
      const seen = now();
      if (seen.status === 'ready') return seen.model;
      throw notReady(seen.status, seen.reason);
    },
    starting(reason) {
      if (state.status === 'starting') state = { ...state, reason };
    },
    serve(model) {
      if (state.status === 'starting') state = { status: 'ready', reason: null, model };
    },
    fail(reason) {
      state = { status: 'failed', reason, model: state.model };
    },
    drain() {
      if (current().status === 'failed') return;
      state = {
        status: 'draining',
        reason: 'it finishes the requests in flight',
        model: state.model,
      };
    },
  };
}
