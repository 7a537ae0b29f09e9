/** The messages between the engine's thread and its handle. */
import type { MessagePort } from 'node:worker_threads';
import type { EngineDescription, EngineEvent, EngineLoad, EngineRequest } from './request.ts';

/** Says how far loading has come; it is shown as a progress bar. */
export interface LoadingProgress {
  readonly label: string;
  readonly done: number;
  readonly total: number;
}

export type ToEngine =
  /** The first message: where the events go. */
  | { readonly kind: 'open'; readonly events: MessagePort }
  | { readonly kind: 'submit'; readonly requests: readonly EngineRequest[] }
  | { readonly kind: 'abort'; readonly ids: readonly string[] }
  | { readonly kind: 'close'; readonly graceMs: number };

export type FromEngine =
  | { readonly kind: 'loading'; readonly progress: LoadingProgress }
  | {
      readonly kind: 'ready';
      readonly description: EngineDescription;
      readonly load: EngineLoad;
    }
  /** Tells that one more message is at the port of events. */
  | { readonly kind: 'events' }
  | { readonly kind: 'failed'; readonly message: string };

/** All events of one step, or of one abort, and the figures after it. */
export interface StepEvents {
  readonly events: readonly EngineEvent[];
  readonly load: EngineLoad;
}
