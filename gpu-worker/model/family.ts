/** The contract of a family of models: a folder here, and an entry of families.ts. */
import type { Backend } from '../backend/backend.ts';
import type { HostTensor } from '../backend/weights.ts';
import type { TensorSpec } from '../weights/tensor-spec.ts';
import type { ModelConfig } from './mla-moe/config.ts';
import type { Model, ModelLimits } from './model.ts';

export interface ModelFamily {
  /** Its chat format (gpu-worker/chat-formats), where the checkpoint's template tells no other. */
  readonly chatFormat: string;
  /**
   * Parses a whole config.json, strictly.
   * @throws ConfigError that names the key
   */
  parseConfig(json: unknown): ModelConfig;
  /**
   * Holds the configuration against the names of the checkpoint's tensors, before lists as long as
   * its counts are made.
   * @throws ConfigError that names the key
   */
  checkTensorNames(config: ModelConfig, names: Iterable<string>): void;
  /** Every tensor that a checkpoint may hold; a model that `drafts` needs its MTP module too. */
  tensorSpecs(config: ModelConfig, drafts?: boolean): Iterable<TensorSpec>;
  /** Begins a model on a backend; one that `drafts` only if the configuration has a module. */
  buildModel(config: ModelConfig, backend: Backend, drafts?: boolean): ModelBuilder;
}

/** Give every tensor of `specs` that is needed to `accept`, then call `finish` once. */
export interface ModelBuilder {
  readonly specs: readonly TensorSpec[];
  accept(tensor: HostTensor): void;
  /** Allocates the activations. */
  finish(options: ModelOptions): CachelessModel;
}

export interface ModelOptions {
  /**
   * `dense` attends to every token and leaves the indexer out: the baseline of every speed claim.
   */
  readonly attention: 'sparse' | 'dense';
  readonly limits: ModelLimits;
}

/** A model whose weights and activations are allocated, before its caches take what is left. */
export interface CachelessModel {
  /** Bytes of a block of 64 tokens in the caches of all layers. */
  readonly blockBytes: number;
  withCache(blocks: number): Model;
}
