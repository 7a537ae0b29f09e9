/** What the engine's thread and its handle say to each other. */
import type { EngineDescription, EngineEvent, EngineLoad, EngineRequest } from './request.ts';

/** How far loading has come; shown as a progress bar. */
export interface LoadingProgress {
  readonly label: string;
  readonly done: number;
  readonly total: number;
}

export type ToEngine =
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
  | {
      /** All events of one step, or of one abort, and the figures after it. */
      readonly kind: 'events';
      readonly events: readonly EngineEvent[];
      readonly load: EngineLoad;
    }
  | { readonly kind: 'failed'; readonly message: string };
