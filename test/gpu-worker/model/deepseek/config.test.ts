import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { at } from '../../../../gpu-worker/at.ts';
import { ConfigError } from '../../../../gpu-worker/model/config-error.ts';
import { parseModelConfig } from '../../../../gpu-worker/model/families.ts';
import { chooseNumerics } from '../../../../gpu-worker/model/mla-moe/numerics.ts';
import { ropeFrequencies } from '../../../../gpu-worker/model/mla-moe/rope.ts';
import { modelKinds, randomConfig } from '../../../support/weights/checkpoint-config.ts';
import type { ModelKind } from '../../../support/weights/checkpoint-config.ts';
import { readGolden } from '../../../support/worker/golden.ts';

type Json = Record<string, unknown>;

/** The published numbers of DeepSeek-V3.2 (docs/engine-spec.md#configuration). */
const deepseek: Json = {
  architectures: ['DeepseekV32ForCausalLM'],
  model_type: 'deepseek_v32',
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: 0,
  eos_token_id: 1,
  ep_size: 1,
  first_k_dense_replace: 3,
  hidden_act: 'silu',
  hidden_size: 7168,
  index_head_dim: 128,
  index_n_heads: 64,
  index_topk: 2048,
  initializer_range: 0.02,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  n_group: 8,
  n_routed_experts: 256,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 1,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  quantization_config: {
    activation_scheme: 'dynamic',
    fmt: 'e4m3',
    quant_method: 'fp8',
    scale_fmt: 'ue8m0',
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_scaling: {
    type: 'yarn',
    factor: 40,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 1,
    mscale_all_dim: 1,
  },
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_group: 4,
  topk_method: 'noaux_tc',
  torch_dtype: 'bfloat16',
  transformers_version: '4.44.2',
  use_cache: true,
  v_head_dim: 128,
  vocab_size: 129280,
};

/** `path` is a key, or `outer.inner`; undefined removes it. */
function changed(path: string, value: unknown): Json {
  const [outer = '', inner] = path.split('.');
  const before = deepseek[outer];
  const next = inner === undefined ? value : { ...(before as Json), [inner]: value }; // Nested keys are asked of objects alone.
  // Removal is done as JSON does it: undefined is left out.
  return JSON.parse(JSON.stringify({ ...deepseek, [outer]: next })) as Json;
}

describe('a model configuration', () => {
  test('is read from the published numbers', () => {
    const config = parseModelConfig(deepseek);
    const dense = config.layerKinds.filter(({ feedForward }) => feedForward === 'dense');
    expect([config.layerKinds.length, dense.length]).toEqual([61, 3]);
    expect(config.layerKinds.every(({ indexer }) => indexer === 'full')).toBe(true);
    expect(config).toMatchObject({
      modelType: 'deepseek_v32',
      layers: 61,
      mtpLayers: 1,
      contextLength: 163840,
      endTokens: [1],
      quantization: { scaleFormat: 'ue8m0' },
      indexer: { heads: 64, dim: 128, topK: 2048, ropeLayout: 'half' },
      experts: { count: 256, perToken: 8, shared: 1, groups: 8, groupsKept: 4, scale: 2.5 },
    });
  });

  test('has the softmax scale and the rope frequencies of the specification', () => {
    const config = parseModelConfig(deepseek);
    expect(config.attention.softmaxScale).toBeCloseTo(0.13523378, 8);
    const plain = parseModelConfig(changed('rope_scaling', null));
    expect(plain.attention.softmaxScale).toBeCloseTo(0.07216878, 8);
    const frequencies = ropeFrequencies(config.rope, 64);
    const listed = { 0: 1, 10: 0.0562341, 11: 0.0390069, 15: 0.00833451, 20: 7.90569e-4 };
    const listedHigh = { 22: 1.77828e-4, 23: 3.3338e-5, 31: 3.3338e-6 };
    for (const [pair, value] of Object.entries({ ...listed, ...listedHigh })) {
      expect(Math.abs(at(frequencies, Number(pair)) / value - 1)).toBeLessThan(3e-6);
    }
  });

  test.each(['dsv32-f32', 'dsv32-fp8'] as const)('is read from the golden %s', (name) => {
    const text = readFileSync(`${readGolden(name).directory}config.json`, 'utf8');
    const json = JSON.parse(text) as Json; // A config.json is an object.
    expect(parseModelConfig(json).layers).toBe(json['num_hidden_layers']);
  });

  // The keys of the table are the kinds, nothing else.
  test.each(Object.keys(modelKinds) as ModelKind[])('is read for the kind "%s"', (kind) => {
    expect(parseModelConfig(randomConfig(kind, 11)).contextLength).toBe(512);
  });

  test('takes a query rank of 0 for none, in a model without an indexer', () => {
    const config = { ...randomConfig('V3 with a single query projection', 1), q_lora_rank: 0 };
    expect(parseModelConfig(config).attention.queryLatentDim).toBe(null);
  });

  test('loads with a warning where positions go beyond the reach of YaRN', () => {
    expect(parseModelConfig(deepseek).warnings).toEqual([]);
    const beyond = parseModelConfig(changed('max_position_embeddings', 163841));
    expect(beyond.contextLength).toBe(163841);
    expect(beyond.warnings).toEqual([expect.stringMatching(/163841.*163840/)]);
  });

  test('needs no expert keys when every layer is dense', () => {
    const expertKeys = /^(moe_intermediate_size|n_routed|n_shared|num_experts_per|n_group|topk_g)/;
    const kept = Object.entries(randomConfig('no experts', 1)).filter(
      ([key]) => !expertKeys.test(key),
    );
    expect(parseModelConfig(Object.fromEntries(kept)).experts).toBe(null);
  });
});

/** [key that the error has to name, key that is changed, its value] */
const brokenRelations: [string, string, unknown][] = [
  ['architectures', 'architectures', ['LlamaForCausalLM']],
  ['architectures', 'architectures', ['DeepseekV3ForCausalLM']],
  ['num_key_value_heads', 'num_key_value_heads', 8],
  ['num_key_value_heads', 'num_attention_heads', 64],
  ['qk_rope_head_dim', 'qk_rope_head_dim', 63],
  ['first_k_dense_replace', 'first_k_dense_replace', 62],
  ['bos_token_id', 'bos_token_id', 129280],
  ['eos_token_id', 'eos_token_id', [1, 129280]],
  ['n_group', 'n_group', 7],
  ['n_group', 'n_routed_experts', 255],
  ['topk_group', 'topk_group', 9],
  ['num_experts_per_tok', 'num_experts_per_tok', 129],
  ['num_experts_per_tok', 'num_experts_per_tok', undefined],
  ['n_routed_experts', 'n_routed_experts', undefined],
  ['n_shared_experts', 'n_shared_experts', undefined],
  ['moe_intermediate_size', 'moe_intermediate_size', undefined],
  ['index_n_heads', 'index_n_heads', undefined],
  ['index_head_dim', 'index_head_dim', undefined],
  ['index_topk', 'index_topk', undefined],
  ['q_lora_rank', 'q_lora_rank', null],
  ['q_lora_rank', 'q_lora_rank', 0],
  ['index_head_dim', 'index_head_dim', 32],
  ['rope_scaling.mscale_all_dim', 'rope_scaling.mscale_all_dim', 0.5],
  ['rope_scaling.mscale_all_dim', 'rope_scaling.mscale_all_dim', undefined],
  ['rope_scaling.beta_fast', 'rope_scaling.beta_fast', 1],
  ['rope_theta', 'rope_theta', 1],
  ['rope_scaling.mscale', 'rope_scaling.mscale', 1e308],
  ['rope_scaling.factor', 'rope_scaling.factor', 1e308],
  ['routed_scaling_factor', 'routed_scaling_factor', 1e308],
  ['rms_norm_eps', 'rms_norm_eps', 1e-300],
  ['rms_norm_eps', 'rms_norm_eps', 1e300],
  ['max_position_embeddings', 'max_position_embeddings', 1e9],
  ['index_topk', 'index_topk', 1e9],
];

/** Values that the engine does not compute. */
const unsupported: [string, unknown][] = [
  ['model_type', 'deepseek_v4'],
  ['hidden_act', 'gelu'],
  ['attention_bias', true],
  ['tie_word_embeddings', true],
  ['scoring_func', 'softmax'],
  ['topk_method', 'greedy'],
  ['moe_layer_freq', 2],
  ['index_topk_freq', 2],
  ['index_topk_pattern', 'FS'],
  ['index_skip_topk_offset', 1],
  ['rope_scaling.type', 'linear'],
  ['rope_scaling.type', undefined],
  ['rope_scaling.attention_factor', 1.2],
  ['rope_scaling.truncate', false],
  ['rope_scaling.partial_rotary_factor', 0.5],
  ['rope_interleave', false],
  ['mlp_bias', true],
  ['quantization_config.dequantize', true],
  ['quantization_config.quant_method', 'awq'],
  ['quantization_config.fmt', 'e5m2'],
  ['quantization_config.activation_scheme', 'static'],
  ['quantization_config.weight_block_size', [64, 128]],
  ['quantization_config.scale_fmt', 'e8'],
  ['a_key_of_the_future', 1],
  ['num_nextn_predict_layers', 9],
];

const counts = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'moe_intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'kv_lora_rank',
  'qk_nope_head_dim',
  'qk_rope_head_dim',
  'v_head_dim',
  'n_routed_experts',
  'num_experts_per_tok',
  'index_topk',
  'max_position_embeddings',
];

describe('a broken model configuration', () => {
  test.each(brokenRelations)('names %s when %s is %j', (key, path, value) => {
    expect(errorOf(changed(path, value))).toMatch(startsWith(key));
  });

  test.each(unsupported)('is refused, not ignored, when %s is %j', (path, value) => {
    expect(errorOf(changed(path, value))).toMatch(startsWith(path));
  });

  test.each(counts)('names %s when it is 0, negative, fractional, text, huge or missing', (key) => {
    for (const value of [0, -1, 1.5, '64', 1e300, undefined]) {
      expect(errorOf(changed(key, value))).toMatch(startsWith(key));
    }
  });

  test.each(['rms_norm_eps', 'rope_theta', 'routed_scaling_factor'])(
    'names %s when it is 0',
    (key) => {
      expect(errorOf(changed(key, 0))).toMatch(startsWith(key));
      expect(errorOf(changed(key, '1'))).toMatch(startsWith(key));
    },
  );

  test.each(['index_n_heads', 'index_head_dim', 'index_topk'])('names %s in a V3 model', (key) => {
    const v3 = randomConfig('V3, dense attention', 5);
    expect(errorOf({ ...v3, [key]: 32 })).toMatch(startsWith(key));
  });

  test('names index_head_dim when the deployment numerics cannot transform it', () => {
    const config = parseModelConfig(changed('index_head_dim', 96));
    expect(() => chooseNumerics('fp8', config)).toThrow(/^index_head_dim must be a power of two/);
    expect(chooseNumerics('f32', config).hadamard).toBe(false);
  });

  test('refuses a choice of latents that float32 does not leave', () => {
    const config = parseModelConfig(randomConfig('V3.2 with everything', 5));
    expect(() => chooseNumerics('f32', config, 'bf16')).toThrow(/^f32 numerics keep latents in/);
    expect(chooseNumerics('fp8', config, 'bf16').latentCache).toBe('bf16');
  });

  test.each([null, [], 'text', 7])('is refused when the file holds %j', (json) => {
    expect(errorOf(json)).toMatch(/config\.json/);
  });
});

function errorOf(json: unknown): string {
  try {
    parseModelConfig(json);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message; // Checked in the line above.
  }
  throw new Error('the configuration was accepted');
}

/** The message begins with the key as a whole word. */
function startsWith(key: string): RegExp {
  return new RegExp(`^${key.replaceAll('.', '\\.')}[ :.]`);
}
