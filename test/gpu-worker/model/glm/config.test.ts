import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../../../gpu-worker/model/config-error.ts';
import { familyOf, parseModelConfig } from '../../../../gpu-worker/model/families.ts';
import { readGolden } from '../../../support/worker/golden.ts';

type Json = Record<string, unknown>;

/** The types that the published GLM-5.2 has: 0, 1, 2 and every fourth layer after them are full. */
const publishedTypes = Array.from({ length: 78 }, (_, layer) =>
  layer < 3 || (layer - 2) % 4 === 0 ? 'full' : 'shared',
);

/** The published config.json of GLM-5.2 in fp8, its lists written out. */
const glm: Json = {
  architectures: ['GlmMoeDsaForCausalLM'],
  attention_bias: false,
  attention_dropout: 0,
  dtype: 'bfloat16',
  eos_token_id: [154820, 154827, 154829],
  ep_size: 1,
  first_k_dense_replace: 3,
  head_dim: 192,
  hidden_act: 'silu',
  hidden_size: 6144,
  index_head_dim: 128,
  index_n_heads: 32,
  index_share_for_mtp_iteration: true,
  index_skip_topk_offset: 3,
  index_topk: 2048,
  index_topk_freq: 4,
  index_topk_pattern: null,
  indexer_rope_interleave: true,
  indexer_types: publishedTypes,
  initializer_range: 0.02,
  intermediate_size: 12288,
  kv_lora_rank: 512,
  max_position_embeddings: 1048576,
  mlp_layer_types: Array.from({ length: 78 }, (_, layer) => (layer < 3 ? 'dense' : 'sparse')),
  model_type: 'glm_moe_dsa',
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  moe_router_dtype: 'float32',
  n_group: 1,
  n_routed_experts: 256,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 64,
  num_experts_per_tok: 8,
  num_hidden_layers: 78,
  num_key_value_heads: 64,
  num_nextn_predict_layers: 1,
  pad_token_id: 154820,
  pretraining_tp: 1,
  q_lora_rank: 2048,
  qk_head_dim: 256,
  qk_nope_head_dim: 192,
  qk_rope_head_dim: 64,
  quantization_config: {
    activation_scheme: 'dynamic',
    fmt: 'e4m3',
    quant_method: 'fp8',
    weight_block_size: [128, 128],
    modules_to_not_convert: ['lm_head'],
  },
  rms_norm_eps: 1e-5,
  rope_interleave: true,
  rope_parameters: { rope_theta: 8000000, rope_type: 'default' },
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_group: 1,
  topk_method: 'noaux_tc',
  transformers_version: '5.15.0',
  use_cache: true,
  v_head_dim: 256,
  vocab_size: 154880,
};

/** A change to undefined removes the key, as JSON leaves it out. */
function changed(changes: Json): Json {
  return JSON.parse(JSON.stringify({ ...glm, ...changes })) as Json;
}

/** Only the keys that GLM-5 has too, before layers shared a selection. */
const ofEveryLayer: Json = {
  indexer_types: undefined,
  index_topk_freq: undefined,
  index_skip_topk_offset: undefined,
  index_topk_pattern: undefined,
  index_share_for_mtp_iteration: undefined,
};

function indexersOf(changes: Json): string {
  const { layerKinds } = parseModelConfig(changed(changes));
  return layerKinds.map(({ indexer }) => (indexer === 'full' ? 'F' : 'S')).join('');
}

const published = publishedTypes.map((type) => (type === 'full' ? 'F' : 'S')).join('');

describe('a GLM configuration', () => {
  test('is read from the published numbers', () => {
    const config = parseModelConfig(glm);
    expect(config).toMatchObject({
      modelType: 'glm_moe_dsa',
      layers: 78,
      mtpLayers: 1,
      contextLength: 1048576,
      endTokens: [154820, 154827, 154829],
      beginToken: null,
      quantization: { scaleFormat: 'f32' },
      attention: { heads: 64, nopeDim: 192, ropeDim: 64, valueDim: 256, softmaxScale: 1 / 16 },
      indexer: { heads: 32, dim: 128, topK: 2048, ropeLayout: 'interleaved' },
      experts: { count: 256, perToken: 8, shared: 1, groups: 1, groupsKept: 1, scale: 2.5 },
      rope: { theta: 8000000, yarn: null },
      warnings: [],
    });
    const dense = config.layerKinds.filter(({ feedForward }) => feedForward === 'dense');
    expect(dense).toHaveLength(3);
    expect(familyOf(config.modelType).chatFormat).toBe('glm');
  });

  test('is read from the golden', () => {
    const text = readFileSync(`${readGolden('glm-dsa-f32').directory}config.json`, 'utf8');
    const { layerKinds } = parseModelConfig(JSON.parse(text));
    expect(layerKinds.map(({ indexer }) => indexer)).toEqual([
      'full',
      'full',
      'shared',
      'shared',
      'full',
      'shared',
    ]);
    expect(layerKinds.map(({ feedForward }) => feedForward)).toEqual([
      'dense',
      'dense',
      'experts',
      'experts',
      'experts',
      'experts',
    ]);
  });

  test('says in four ways which layers have an indexer', () => {
    expect(published.match(/F/g)).toHaveLength(21);
    expect(indexersOf({})).toBe(published);
    expect(indexersOf({ indexer_types: undefined })).toBe(published);
    expect(indexersOf({ ...ofEveryLayer, indexer_types: publishedTypes })).toBe(published);
    expect(indexersOf({ ...ofEveryLayer, index_topk_pattern: published })).toBe(published);
    expect(indexersOf({ ...ofEveryLayer, index_topk_pattern: publishedTypes })).toBe(published);
    expect(indexersOf(ofEveryLayer)).toBe('F'.repeat(78));
    const others = `FS${'F'.repeat(76)}`;
    expect(indexersOf({ indexer_types: undefined, index_topk_pattern: others })).toBe(others);
    const byTwo = { ...ofEveryLayer, index_topk_freq: 2, index_skip_topk_offset: 1 };
    expect(indexersOf(byTwo)).toBe('FS'.repeat(39));
  });

  test('has experts where mlp_layer_types says, without a count of dense layers', () => {
    const types = Array.from({ length: 78 }, (_, layer) => (layer % 2 ? 'dense' : 'sparse'));
    const config = changed({ mlp_layer_types: types, first_k_dense_replace: undefined });
    const kinds = parseModelConfig(config).layerKinds.map(({ feedForward }) => feedForward);
    expect(kinds.slice(0, 3)).toEqual(['experts', 'dense', 'experts']);
  });

  test('may repeat the width of the rotated part in head_dim, as GLM-5 does', () => {
    expect(parseModelConfig(changed({ head_dim: 64 })).attention.ropeDim).toBe(64);
  });

  test('rotates halves in the indexer only if it says so', () => {
    const layoutOf = (changes: Json) => parseModelConfig(changed(changes)).indexer?.ropeLayout;
    expect(layoutOf({ indexer_rope_interleave: undefined })).toBe('interleaved');
    expect(layoutOf({ indexer_rope_interleave: false })).toBe('half');
  });
});

const flipped = publishedTypes.map((type, layer) => (layer === 4 ? 'full' : type));
const allDense = Array.from({ length: 78 }, () => 'dense');
const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 4096 };

describe('a GLM configuration is refused in one line', () => {
  test.each<[string, Json, RegExp]>([
    ['another architecture', { architectures: ['GlmForCausalLM'] }, /^architectures is GlmFor/],
    [
      'an unknown key',
      { index_topk_window: 1 },
      /^index_topk_window is not a key .* \(model_type is glm_moe_dsa; this engine knows deepseek_v3, deepseek_v32, glm_moe_dsa\)$/,
    ],
    ['a router in bfloat16', { moe_router_dtype: 'bfloat16' }, /^moe_router_dtype: /],
    ['types too few', { indexer_types: ['full'] }, /^indexer_types has 1 entries, but num_hidden/],
    ['an unknown type', { indexer_types: ['half'] }, /^indexer_types\.0: /],
    [
      'types against a frequency',
      { indexer_types: flipped },
      /^indexer_types\.4 is "full", but index_topk_freq 4 with index_skip_topk_offset 3 makes it "shared"$/,
    ],
    [
      'types against a pattern',
      { indexer_types: flipped, index_topk_pattern: published },
      /^indexer_types\.4 is "full", but index_topk_pattern makes it "shared"$/,
    ],
    [
      'a pattern too short',
      { index_topk_pattern: 'FS' },
      /^index_topk_pattern has 2 entries, but num_hidden_layers is 78$/,
    ],
    ['a pattern of other letters', { index_topk_pattern: 'FX' }, /^index_topk_pattern: .*F.*S/],
    [
      'a first layer that shares',
      { indexer_types: undefined, index_skip_topk_offset: 0 },
      /^index_topk_freq 4 with index_skip_topk_offset 0 makes layer 0 share a selection/,
    ],
    [
      'a first type that shares',
      { ...ofEveryLayer, indexer_types: Array.from({ length: 78 }, () => 'shared') },
      /^indexer_types makes layer 0 share a selection, but no layer is before it$/,
    ],
    ['a frequency of 0', { index_topk_freq: 0 }, /^index_topk_freq: /],
    [
      'dense layers that contradict',
      { mlp_layer_types: allDense },
      /^mlp_layer_types\.3 is "dense", but first_k_dense_replace is 3$/,
    ],
    [
      'no word of dense layers',
      { mlp_layer_types: undefined, first_k_dense_replace: undefined },
      /^first_k_dense_replace is missing, and there are no mlp_layer_types either$/,
    ],
    [
      'two thetas',
      { rope_theta: 10000 },
      /^rope_theta is 10000, but rope_parameters\.rope_theta is 8000000$/,
    ],
    [
      'rope_scaling that contradicts',
      { rope_scaling: yarn },
      /^rope_scaling is .*"factor":4.*, but rope_parameters is null$/,
    ],
    [
      'a default rope with a factor',
      { rope_parameters: { rope_theta: 8000000, rope_type: 'default', factor: 4 } },
      /^rope_parameters\.factor: is set, but the type is "default"$/,
    ],
    ['no theta', { rope_parameters: { rope_type: 'default' } }, /^rope_theta is missing/],
    [
      'another head_dim',
      { head_dim: 128 },
      /^head_dim is 128, but qk_rope_head_dim is 64 and qk_nope_head_dim is 192$/,
    ],
    ['no indexer', { index_topk: undefined }, /^index_topk is missing, but glm_moe_dsa has an/],
    ['layers beyond all models', { num_hidden_layers: 1e9 }, /^num_hidden_layers: /],
  ])('%s', (_, changes, message) => {
    expect(() => parseModelConfig(changed(changes))).toThrow(message);
    expect(() => parseModelConfig(changed(changes))).toThrow(ConfigError);
  });
});

describe('a model of no known family', () => {
  test.each([
    [{ model_type: 'deepseek_v4' }, /^model_type is "deepseek_v4", .* it knows deepseek_v3, deep/],
    [{ model_type: 'toString' }, /^model_type is "toString", .*glm_moe_dsa$/],
    [{ model_type: '__proto__' }, /^model_type is "__proto__", .*glm_moe_dsa$/],
    [{}, /^model_type is missing or no text; this engine knows deepseek_v3, deepseek_v32, glm/],
    [{ model_type: 7 }, /^model_type is missing or no text; this engine knows/],
    [[], /^config\.json holds no JSON object$/],
  ])('is refused with the families that there are: %j', (json, message) => {
    expect(() => parseModelConfig(json)).toThrow(message);
    expect(() => parseModelConfig(json)).toThrow(ConfigError);
  });
});
