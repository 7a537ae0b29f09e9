/**
 * Checkpoints whose config.json transformers 5 has written: the same model, or a refusal that says
 * why.
 */
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../../../gpu-worker/model/config-error.ts';
import { parseModelConfig } from '../../../../gpu-worker/model/families.ts';
import { fp8Keys, modelKinds, randomConfig } from '../../../support/weights/checkpoint-config.ts';
import type { CheckpointConfig, ModelKind } from '../../../support/weights/checkpoint-config.ts';
import { readGolden } from '../../../support/worker/golden.ts';
import { openForTest, runAlone } from '../../../support/worker/model-harness.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';
import { firstDifference } from '../../../support/worker/transcripts.ts';
import { asTransformers5 } from '../../../support/weights/transformers-config.ts';

// The keys of the table are the kinds, nothing else.
test.each(Object.keys(modelKinds) as ModelKind[])('"%s" is the same model', (kind) => {
  const config = randomConfig(kind, 17);
  expect(parseModelConfig(asTransformers5(config))).toEqual(parseModelConfig(config));
});

test('with fp8 weights it is the same model', () => {
  const config = { ...randomConfig('no YaRN', 3), quantization_config: fp8Keys };
  expect(parseModelConfig(asTransformers5(config))).toEqual(parseModelConfig(config));
});

test('both forms at once are taken where they agree', () => {
  const config = randomConfig('V3.2 with everything', 5);
  const both = { ...asTransformers5(config), ...config };
  expect(parseModelConfig(both)).toEqual(parseModelConfig(config));
});

test('rope_scaling may name the type and the theta as well', () => {
  const config = randomConfig('no YaRN', 5);
  const { rope_theta, ...others } = config;
  const nested = { ...others, rope_scaling: { rope_theta, rope_type: 'default' } };
  expect(parseModelConfig(nested)).toEqual(parseModelConfig(config));
});

test('a golden checkpoint has the scores of the original', async () => {
  const golden = readGolden('dsv32-f32');
  const config = JSON.parse(
    readFileSync(join(golden.directory, 'config.json'), 'utf8'),
  ) as CheckpointConfig; // The golden's config.json has the published keys.
  const directory = temporaryDirectory();
  symlinkSync(join(golden.directory, 'model.safetensors'), join(directory, 'model.safetensors'));
  writeFileSync(join(directory, 'config.json'), JSON.stringify(asTransformers5(config)));
  const [original, converted] = await Promise.all([
    openForTest(golden.directory),
    openForTest(directory),
  ]);
  try {
    const tokens = golden.input_ids;
    const difference = firstDifference(runAlone(converted, tokens), runAlone(original, tokens));
    expect(difference).toBe(null);
  } finally {
    await original.close();
    await converted.close();
  }
});

describe('a key that contradicts what implies it is refused, with both named:', () => {
  const config = randomConfig('V3.2 with everything', 5);
  const right = asTransformers5(config);
  const yarn = config.rope_scaling;
  const layers = config.num_hidden_layers;
  test.each<[string, Record<string, unknown>, RegExp]>([
    ['rope_theta', { rope_theta: 7 }, /^rope_theta is 7, but rope_parameters\.rope_theta is \d+$/],
    [
      'rope_scaling',
      { rope_scaling: { ...yarn, factor: 3 } },
      /^rope_scaling is .*"factor":3.* but rope_parameters is /,
    ],
    ['no theta', { rope_parameters: { rope_type: 'default' } }, /^rope_theta is missing/],
    [
      'rope_type',
      { rope_parameters: { ...yarn, rope_theta: 1, rope_type: 'linear' } },
      /^rope_parameters\.rope_type: /,
    ],
    [
      'types that differ',
      { rope_parameters: { ...yarn, rope_theta: 1, rope_type: 'default' } },
      /^rope_parameters\.rope_type: is "default", but type is "yarn"$/,
    ],
    [
      'an unknown key',
      { rope_parameters: { rope_theta: 1, low_freq_factor: 1 } },
      /^rope_parameters\.low_freq_factor is not a key/,
    ],
    ['head_dim', { head_dim: 3 }, /^head_dim is 3, but qk_rope_head_dim is \d+$/],
    [
      'qk_head_dim',
      { qk_head_dim: 3 },
      /^qk_head_dim is 3, but qk_nope_head_dim \+ qk_rope_head_dim is \d+$/,
    ],
    ['rope_interleave', { rope_interleave: false }, /^rope_interleave is false, but model_type/],
    ['experts', { num_local_experts: 3 }, /^num_local_experts is 3, but n_routed_experts is 12$/],
    [
      'a dense layer too many',
      { mlp_layer_types: Array.from({ length: layers }, () => 'dense') },
      /^mlp_layer_types\.1 is "dense", but first_k_dense_replace is 1$/,
    ],
    [
      'a layer too few',
      { mlp_layer_types: ['dense'] },
      /^mlp_layer_types has 1 entries, but num_hidden_layers is \d$/,
    ],
    [
      'a sliding window',
      { layer_types: Array.from({ length: layers }, () => 'sliding_attention') },
      /^layer_types\.0 is "sliding_attention", but model_type is deepseek_v32$/,
    ],
    [
      'a shared indexer',
      { indexer_types: Array.from({ length: layers }, () => 'shared') },
      /^indexer_types\.0 is "shared", but every layer of deepseek_v32 has an indexer of its own$/,
    ],
  ])('%s', (_, changes, message) => {
    expect(() => parseModelConfig({ ...right, ...changes })).toThrow(message);
    expect(() => parseModelConfig({ ...right, ...changes })).toThrow(ConfigError);
  });
});
