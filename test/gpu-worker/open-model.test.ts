/** A checkpoint whose tensors contradict its config.json is refused, by the key or the tensor. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { loadModel } from '../../gpu-worker/open-model.ts';
import { openTokenizer } from '../../gpu-worker/tokenizer/tokenizer.ts';
import { randomConfig } from '../support/weights/checkpoint-config.ts';
import type { CheckpointConfig } from '../support/weights/checkpoint-config.ts';
import { randomTensors, writeRandomCheckpoint } from '../support/weights/random-checkpoint.ts';
import { pack } from '../support/weights/safetensors-writer.ts';
import type { TensorToWrite } from '../support/weights/safetensors-writer.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tinyFiles } from './tokenizer/fixture.ts';

type Json = Record<string, unknown>;

const config = { ...randomConfig('V3.2 with everything', 7) };

/** The error of a checkpoint that is refused before a backend is opened. */
function refusalOf(location: string): Promise<string> {
  const opening = loadModel({
    location,
    compute: { numerics: 'f32', attention: 'sparse' },
    limits: { rowsMax: 8, logitRowsMax: 8 },
    openBackend: () => Promise.reject(new Error('a backend was opened')),
  });
  return opening.then(
    () => 'loaded',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

describe('a config.json with a number that its tensors contradict', () => {
  let directory = '';

  beforeAll(() => {
    directory = temporaryDirectory();
    writeRandomCheckpoint(directory, config, { seed: 7, dtype: 'F32', shards: 1 });
  });

  async function refusal(changed: Json): Promise<string> {
    writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config, ...changed }));
    return refusalOf(directory);
  }

  const experts = { n_group: 1, topk_group: 1 };
  const heads = (count: number) => ({ num_attention_heads: count, num_key_value_heads: count });
  const cases: [string, Json][] = [];
  for (const size of [70_000, 1e9, 2 ** 31 - 1]) {
    cases.push(
      ['num_hidden_layers', { num_hidden_layers: size }],
      ['n_routed_experts', { n_routed_experts: size, ...experts }],
      ['n_shared_experts', { n_shared_experts: size }],
      ['vocab_size', { vocab_size: size }],
      ['hidden_size', { hidden_size: size }],
      ['intermediate_size', { intermediate_size: size }],
      ['moe_intermediate_size', { moe_intermediate_size: size }],
      ['num_attention_heads', heads(size)],
      ['kv_lora_rank', { kv_lora_rank: size }],
      ['q_lora_rank', { q_lora_rank: size }],
      ['qk_nope_head_dim', { qk_nope_head_dim: size }],
      ['v_head_dim', { v_head_dim: size }],
      ['index_n_heads', { index_n_heads: size }],
      ['index_head_dim', { index_head_dim: size - (size % 2) }],
      ['index_topk', { index_topk: size }],
    );
  }
  cases.push(
    ['num_hidden_layers', { num_hidden_layers: config.num_hidden_layers + 1 }],
    ['n_routed_experts', { n_routed_experts: 65_537, ...experts }],
    ['n_routed_experts', { n_routed_experts: 13, ...experts }],
    ['max_position_embeddings', { max_position_embeddings: 1e9 }],
    ['num_nextn_predict_layers', { num_nextn_predict_layers: 1e9 }],
    ['qk_rope_head_dim', { qk_rope_head_dim: 1e9, index_head_dim: 1e9 }],
  );

  test.each(cases)('names %s of %j before a backend is opened', async (key, changed) => {
    expect(await refusal(changed)).toMatch(new RegExp(`^[^\n]*\\b${key}\\b[^\n]*$`));
  });
});

describe('a checkpoint whose layers are not those of its config.json', () => {
  const glm = randomConfig('GLM with a selection of every second layer', 7);

  function write(changed: Json, tensors: readonly TensorToWrite[]): string {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...glm, ...changed }));
    writeFileSync(join(directory, 'model.safetensors'), pack(tensors));
    return directory;
  }
  const tensorsOf = (changed: Partial<CheckpointConfig>) =>
    randomTensors({ ...glm, ...changed }, { seed: 7, dtype: 'F32' });

  test('is refused by the tensor where a layer that shares a selection has an indexer', async () => {
    const everywhere = tensorsOf({ index_topk_freq: 1 });
    const said = await refusalOf(write({}, everywhere));
    expect(said).toBe(
      'indexer_types makes layer 1 share the selection of layer 0, but the checkpoint holds an ' +
        'indexer of it: model.layers.1.self_attn.indexer.wq_b.weight',
    );
  });

  test('is refused by the tensor where a layer that selects has no indexer', async () => {
    const said = await refusalOf(write({ index_topk_freq: 1 }, tensorsOf({})));
    expect(said).toMatch(/lacks the tensor model\.layers\.1\.self_attn\.indexer\.[^\n]*$/);
  });

  test('is refused without the MTP module that it promises, and loads once it has it', async () => {
    const promising = {
      num_nextn_predict_layers: 1,
      num_hidden_layers: 2,
      first_k_dense_replace: 1,
    };
    const whole = tensorsOf(promising);
    const isOfModule = ({ name }: TensorToWrite): boolean => name.startsWith('model.layers.2.');
    const without = whole.filter((tensor) => !isOfModule(tensor));
    expect(await refusalOf(write(promising, without))).toMatch(
      /^num_nextn_predict_layers is 1, but the checkpoint lacks the MTP module of layer 2 [^\n]*$/,
    );
    // A decoder layer that nothing feeds is no module.
    const layer = whole.filter(({ name }) => !name.endsWith('.eh_proj.weight'));
    expect(layer.length).toBe(whole.length - 1);
    expect(await refusalOf(write(promising, layer))).toMatch(/^num_nextn_predict_layers is 1/);
    expect(await refusalOf(write(promising, whole))).toBe('a backend was opened');
  });
});

describe('a tokenizer.json with numbers beyond any vocabulary', () => {
  const opening = (change: (json: Json) => void) => () => {
    const json: Json = structuredClone(tinyFiles.tokenizerJson);
    change(json);
    return openTokenizer({ ...tinyFiles, tokenizerJson: json });
  };

  test.each([2 ** 24 + 1, 2 ** 32, 1e300, -1, 1.5])('refuses the id %d', (id) => {
    const added = opening((json) => (json.added_tokens = [{ id, content: '<x>', special: true }]));
    expect(added).toThrow(/^tokenizer\.json: added_tokens\.0\.id: /);
    const token = opening((json) => (json.model = { type: 'BPE', vocab: { a: id }, merges: [] }));
    expect(token).toThrow(/^tokenizer\.json: model\.vocab: /);
  });

  test('names a pre-tokenizer that the library does not know', () => {
    const open = opening((json) => {
      const pretokenizers = [{ type: 'Unheard' }, { type: 'ByteLevel' }];
      json.pre_tokenizer = { type: 'Sequence', pretokenizers };
    });
    expect(open).toThrow(/^tokenizer\.json: pre_tokenizer: .*Unheard/);
    expect(open).toThrow(expect.objectContaining({ name: 'TokenizerError' }));
  });

  test('takes more added tokens than a call may have arguments', () => {
    const tokens = Array.from({ length: 200_000 }, (_, i) => ({ id: 300 + i, content: `<${i}>` }));
    const open = opening((json) => {
      json.added_tokens = [...tinyFiles.tokenizerJson.added_tokens, ...tokens];
    });
    expect(open().vocabSize).toBe(200_300);
  });
});
