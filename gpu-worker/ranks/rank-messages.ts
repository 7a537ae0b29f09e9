/** The messages between the ranks' threads and the thread that leads them. */
import type { MessagePort } from 'node:worker_threads';
import type { Batch } from '../backend/batch.ts';
import type { Draw } from '../backend/draw.ts';
import type { MemoryUse } from '../backend/memory.ts';
import type { Numerics } from '../backend/numerics.ts';
import type { HostTensor } from '../backend/weights.ts';
import type { ModelOptions } from '../model/family.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';

/** The data that a rank's thread is started with. */
export interface RankStart<Opening> {
  readonly rank: number;
  /** T and D, whose product is the number of ranks. */
  readonly tensorParallel: number;
  readonly dataParallel: number;
  readonly config: ModelConfig;
  readonly numerics: Numerics;
  readonly options: ModelOptions;
  /** Words by which commands are told and answered (rank-signals.ts). */
  readonly signals: SharedArrayBuffer;
  /** Commands come and answers go here, read without a listener: no turn of an event loop. */
  readonly commands: MessagePort;
  /** Handed to whoever opens the rank's backend. */
  readonly opening: Opening;
}

/** While a rank loads. */
export type ToLoadingRank =
  /** The rank's part of a tensor. */
  | { readonly kind: 'tensor'; readonly tensor: HostTensor }
  /** Every tensor was given: allocate the activations. */
  | { readonly kind: 'prepare' }
  /** Allocate the caches, then take commands. */
  | { readonly kind: 'serve'; readonly blocks: number };

export type FromLoadingRank =
  | { readonly kind: 'opened' }
  | { readonly kind: 'taken'; readonly bytes: number }
  | { readonly kind: 'prepared'; readonly memory: MemoryUse; readonly blockBytes: number }
  | { readonly kind: 'serving' }
  | { readonly kind: 'failed'; readonly message: string };

/** Once it serves. */
export type RankCommand =
  | { readonly kind: 'forward'; readonly batch: Batch; readonly observes: Observes }
  | { readonly kind: 'logits'; readonly rows: Int32Array }
  | { readonly kind: 'sample'; readonly rows: Int32Array; readonly draws: readonly Draw[] }
  | { readonly kind: 'close' };

/** The values of a forward pass that the rank keeps for an observer of the leader. */
export interface Observes {
  readonly hidden: boolean;
  readonly selection: boolean;
}

export interface Observed {
  readonly hidden: readonly { readonly stage: number; readonly states: Float32Array }[];
  readonly selections: readonly { readonly layer: number; readonly rows: Int32Array[] }[];
}

export type RankAnswer =
  | { readonly kind: 'computed'; readonly observed: Observed }
  | { readonly kind: 'logits'; readonly values: Float32Array }
  | { readonly kind: 'tokens'; readonly tokens: (number | null)[] }
  | { readonly kind: 'failed'; readonly message: string };
