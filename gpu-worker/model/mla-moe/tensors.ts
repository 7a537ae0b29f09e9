/**
 * The tensors that a checkpoint of a given configuration holds (docs/engine-spec.md#tensors), by
 * their published names.
 */
import type { TensorSpec } from '../../weights/tensor-spec.ts';
import type { LayerKind, ModelConfig } from './config.ts';

/** One dimension of a tensor: its size, and the keys of config.json that it was computed from. */
interface Dimension {
  readonly size: number;
  readonly keys: string;
}

/**
 * Every tensor of the checkpoint, `model.layers.*` of the MTP modules included: as skipped, but for
 * the first module of a model that `drafts`. There are as many as the configuration says, so check
 * that with `checkTensorNames` before.
 */
export function* tensorSpecs(
  config: ModelConfig,
  drafts = false,
): Generator<TensorSpec, void, void> {
  const { hidden, vocabulary } = dimensionsOf(config);
  yield f32Matrix('model.embed_tokens.weight', vocabulary, hidden);
  yield vector('model.norm.weight', hidden);
  yield f32Matrix('lm_head.weight', vocabulary, hidden);
  for (const [layer, kind] of config.layerKinds.entries()) yield* layerSpecs(config, layer, kind);
  for (let module = 0; module < config.mtpLayers; module++) {
    const isLoaded = drafts && module === 0;
    for (const each of mtpSpecs(config, config.layers + module)) {
      yield isLoaded ? each : skipped(each);
    }
  }
}

function dimensionsOf({ hiddenSize, vocabSize }: ModelConfig) {
  return {
    hidden: { size: hiddenSize, keys: 'hidden_size' },
    vocabulary: { size: vocabSize, keys: 'vocab_size' },
  };
}

function* layerSpecs(
  config: ModelConfig,
  layer: number,
  kind: LayerKind,
): Generator<TensorSpec, void, void> {
  const prefix = `model.layers.${layer}.`;
  const { hidden } = dimensionsOf(config);
  yield vector(`${prefix}input_layernorm.weight`, hidden);
  yield vector(`${prefix}post_attention_layernorm.weight`, hidden);
  yield* attentionSpecs(config, `${prefix}self_attn.`);
  if (kind.indexer === 'full') yield* indexerSpecs(config, `${prefix}self_attn.indexer.`);
  if (kind.feedForward === 'dense') {
    const intermediate = { size: config.intermediateSize, keys: 'intermediate_size' };
    yield* mlpSpecs(`${prefix}mlp.`, hidden, intermediate);
  } else {
    yield* expertSpecs(config, `${prefix}mlp.`);
  }
}

function* attentionSpecs(config: ModelConfig, prefix: string): Generator<TensorSpec, void, void> {
  const { heads, queryLatentDim, latentDim, nopeDim, ropeDim, valueDim } = config.attention;
  const { hidden } = dimensionsOf(config);
  const latent = { size: latentDim, keys: 'kv_lora_rank' };
  const query = {
    size: heads * (nopeDim + ropeDim),
    keys: 'num_attention_heads * (qk_nope_head_dim + qk_rope_head_dim)',
  };
  if (queryLatentDim === null) {
    yield matrix(`${prefix}q_proj.weight`, query, hidden);
  } else {
    const queryLatent = { size: queryLatentDim, keys: 'q_lora_rank' };
    yield matrix(`${prefix}q_a_proj.weight`, queryLatent, hidden);
    yield vector(`${prefix}q_a_layernorm.weight`, queryLatent);
    yield matrix(`${prefix}q_b_proj.weight`, query, queryLatent);
  }
  const kv = { size: latentDim + ropeDim, keys: 'kv_lora_rank + qk_rope_head_dim' };
  yield matrix(`${prefix}kv_a_proj_with_mqa.weight`, kv, hidden);
  yield vector(`${prefix}kv_a_layernorm.weight`, latent);
  const keysAndValues = {
    size: heads * (nopeDim + valueDim),
    keys: 'num_attention_heads * (qk_nope_head_dim + v_head_dim)',
  };
  yield spec(`${prefix}kv_b_proj.weight`, 'kv-up', [keysAndValues, latent]);
  const values = { size: heads * valueDim, keys: 'num_attention_heads * v_head_dim' };
  yield matrix(`${prefix}o_proj.weight`, hidden, values);
}

function* indexerSpecs(config: ModelConfig, prefix: string): Generator<TensorSpec, void, void> {
  if (config.indexer === null || config.attention.queryLatentDim === null) return;
  const { heads, dim } = config.indexer;
  const { hidden } = dimensionsOf(config);
  const queries = { size: heads * dim, keys: 'index_n_heads * index_head_dim' };
  const queryLatent = { size: config.attention.queryLatentDim, keys: 'q_lora_rank' };
  const key = { size: dim, keys: 'index_head_dim' };
  yield matrix(`${prefix}wq_b.weight`, queries, queryLatent);
  yield matrix(`${prefix}wk.weight`, key, hidden);
  yield vector(`${prefix}k_norm.weight`, key);
  yield vector(`${prefix}k_norm.bias`, key);
  yield f32Matrix(`${prefix}weights_proj.weight`, { size: heads, keys: 'index_n_heads' }, hidden);
}

function* mlpSpecs(
  prefix: string,
  hidden: Dimension,
  intermediate: Dimension,
): Generator<TensorSpec, void, void> {
  yield matrix(`${prefix}gate_proj.weight`, intermediate, hidden);
  yield matrix(`${prefix}up_proj.weight`, intermediate, hidden);
  yield matrix(`${prefix}down_proj.weight`, hidden, intermediate);
}

function* expertSpecs(config: ModelConfig, prefix: string): Generator<TensorSpec, void, void> {
  const { experts } = config;
  if (experts === null) return;
  const { hidden } = dimensionsOf(config);
  const count = { size: experts.count, keys: 'n_routed_experts' };
  const intermediate = { size: experts.intermediateSize, keys: 'moe_intermediate_size' };
  const shared = {
    size: experts.shared * experts.intermediateSize,
    keys: 'n_shared_experts * moe_intermediate_size',
  };
  yield f32Matrix(`${prefix}gate.weight`, count, hidden);
  yield vector(`${prefix}gate.e_score_correction_bias`, count);
  yield* mlpSpecs(`${prefix}shared_experts.`, hidden, shared);
  for (let expert = 0; expert < experts.count; expert++) {
    yield* mlpSpecs(`${prefix}experts.${expert}.`, hidden, intermediate);
  }
}

/** An MTP module: a whole layer, the projection that feeds it, and copies of embedding and head. */
function* mtpSpecs(config: ModelConfig, layer: number): Generator<TensorSpec, void, void> {
  const { hidden, vocabulary } = dimensionsOf(config);
  const prefix = `model.layers.${layer}.`;
  const pair = { size: 2 * hidden.size, keys: '2 * hidden_size' };
  yield* layerSpecs(config, layer, mtpLayerKind(config));
  yield vector(`${prefix}enorm.weight`, hidden);
  yield vector(`${prefix}hnorm.weight`, hidden);
  yield matrix(`${prefix}eh_proj.weight`, hidden, pair);
  yield vector(`${prefix}shared_head.norm.weight`, hidden);
  yield skipped(f32Matrix(`${prefix}shared_head.head.weight`, vocabulary, hidden));
  yield skipped(f32Matrix(`${prefix}embed_tokens.weight`, vocabulary, hidden));
}

/** The layer within an MTP module: it routes and selects wherever the model does. */
export function mtpLayerKind(config: ModelConfig): LayerKind {
  return {
    feedForward: config.experts === null ? 'dense' : 'experts',
    indexer: config.indexer === null ? null : 'full',
  };
}

function matrix(name: string, outputs: Dimension, inputs: Dimension): TensorSpec {
  return spec(name, 'matrix', [outputs, inputs]);
}

function f32Matrix(name: string, outputs: Dimension, inputs: Dimension): TensorSpec {
  return spec(name, 'f32-matrix', [outputs, inputs]);
}

function vector(name: string, length: Dimension): TensorSpec {
  return spec(name, 'vector', [length]);
}

function spec(name: string, role: TensorSpec['role'], dimensions: Dimension[]): TensorSpec {
  const shape = dimensions.map(({ size }) => size);
  return { name, shape, role, use: 'needed', keys: dimensions.map(({ keys }) => keys) };
}

function skipped(needed: TensorSpec): TensorSpec {
  return { ...needed, use: 'skipped' };
}
