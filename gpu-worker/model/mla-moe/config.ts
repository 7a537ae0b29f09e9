/**
 * The configuration of a model of multi-head latent attention and mixture of experts, whatever its
 * family calls the keys. Every relation between its numbers holds once a family has made it.
 */
import type { RopeConfig } from './rope-keys.ts';

export interface ModelConfig {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Width of the dense layers' MLP. */
  readonly intermediateSize: number;
  readonly layers: number;
  /** [layers] */
  readonly layerKinds: readonly LayerKind[];
  readonly attention: AttentionConfig;
  /** null when no layer has experts. */
  readonly experts: ExpertsConfig | null;
  /** null for models without a lightning indexer: they attend densely. */
  readonly indexer: IndexerConfig | null;
  readonly rope: RopeConfig;
  readonly contextLength: number;
  /** Epsilon of the RMSNorms of hidden states; those of latents have their own. */
  readonly normEpsilon: number;
  readonly quantization: QuantizationConfig | null;
  /** Multi-token prediction modules behind the last layer. */
  readonly mtpLayers: number;
  readonly beginToken: number | null;
  readonly endTokens: readonly number[];
  /** Warnings for the operator of a model that loads all the same. */
  readonly warnings: readonly string[];
}

export interface LayerKind {
  readonly feedForward: 'dense' | 'experts';
  /**
   * `full`: the layer's own indexer selects its tokens. `shared`: it attends to what the last full
   * layer before it has selected, and keeps no index keys. null: the model has no indexer.
   */
  readonly indexer: 'full' | 'shared' | null;
}

export interface AttentionConfig {
  readonly heads: number;
  /** q_lora_rank; null for a single query projection. */
  readonly queryLatentDim: number | null;
  /** kv_lora_rank. */
  readonly latentDim: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** (nope + rope)^-0.5, times YaRN's mscale^2 where there is YaRN. */
  readonly softmaxScale: number;
}

export interface ExpertsConfig {
  readonly count: number;
  readonly perToken: number;
  readonly shared: number;
  readonly intermediateSize: number;
  readonly groups: number;
  readonly groupsKept: number;
  readonly normalize: boolean;
  readonly scale: number;
}

export interface IndexerConfig {
  readonly heads: number;
  readonly dim: number;
  readonly topK: number;
  readonly ropeLayout: 'half' | 'interleaved';
}

export interface QuantizationConfig {
  readonly scaleFormat: 'f32' | 'ue8m0';
}
