/** The shapes of a checkpoint, from all of it and from less and less of it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { familyOf, parseModelConfig } from '../../../gpu-worker/model/families.ts';
import { readShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import type { CheckpointShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import { deepseekV32 } from './published-configs.ts';

const indexFile = 'model.safetensors.index.json';
let whole = '';

beforeAll(() => {
  const config = randomConfig('V3.2 with everything', 3);
  whole = temporaryDirectory();
  writeRandomCheckpoint(whole, config, { seed: 3, dtype: 'F8_E4M3', shards: 3 });
});

async function shapesIn(directory: string, readsHeaders = true): Promise<CheckpointShapes> {
  return readShapes(await openDirectory(directory), { readsHeaders });
}

/** Writes config.json and the index of these tensors, of which no file is there. */
function writeIndex(config: object, names: readonly string[]): string {
  const directory = temporaryDirectory();
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  const weightMap = Object.fromEntries(names.map((name) => [name, 'model-00001.safetensors']));
  writeFileSync(join(directory, indexFile), JSON.stringify({ weight_map: weightMap }));
  return directory;
}

/** The matrices' dtypes and shapes; vectors are float32 on the GPU whatever they were. */
function matrices({ tensors }: CheckpointShapes): string[] {
  return tensors
    .filter(({ shape }) => shape.length > 1)
    .map(({ name, dtype, shape }) => `${name} ${dtype} ${shape.join(' ')}`)
    .toSorted();
}

test('headers, an index and config.json alone give the same matrices', async () => {
  const fromHeaders = await shapesIn(whole);
  const fromIndex = await shapesIn(whole, false);
  const alone = temporaryDirectory();
  writeFileSync(join(alone, 'config.json'), readFileSync(join(whole, 'config.json')));
  const fromConfig = await shapesIn(alone);
  expect([fromHeaders, fromIndex, fromConfig].map(({ basis }) => basis)).toEqual([
    'headers',
    'index',
    'config',
  ]);
  expect(matrices(fromHeaders).length).toBeGreaterThan(20);
  expect(matrices(fromIndex)).toEqual(matrices(fromHeaders));
  expect(matrices(fromConfig)).toEqual(matrices(fromHeaders));
});

test('an index whose files are not all there is enough', async () => {
  const directory = writeIndex(
    JSON.parse(readFileSync(join(whole, 'config.json'), 'utf8')),
    Object.keys(JSON.parse(readFileSync(join(whole, indexFile), 'utf8')).weight_map),
  );
  expect(await shapesIn(directory)).toMatchObject({ basis: 'index' });
  rmSync(join(directory, 'config.json'));
  await expect(shapesIn(directory)).rejects.toThrow(`${directory}: config.json is missing`);
});

test('an index that lacks the MTP layer or a tensor is refused', async () => {
  const sizes = { num_hidden_layers: 4, n_routed_experts: 16, n_group: 1, topk_group: 1 };
  const config = { ...deepseekV32, ...sizes };
  const specs = [...familyOf('deepseek_v32').tensorSpecs(parseModelConfig(config))];
  const all = specs.map(({ name }) => name);
  expect(await shapesIn(writeIndex(config, all))).toMatchObject({
    tensors: { length: all.length },
  });
  const own = specs.filter(({ use }) => use === 'needed').map(({ name }) => name);
  await expect(shapesIn(writeIndex(config, own))).rejects.toThrow(/^num_nextn_predict_layers is 1/);
  const missing = 'model.layers.2.self_attn.o_proj.weight';
  const lacking = writeIndex(
    config,
    all.filter((name) => name !== missing),
  );
  await expect(shapesIn(lacking)).rejects.toThrow(
    `${lacking}: the index lacks the tensor ${missing}`,
  );
});

test.each([
  ['num_hidden_layers', { num_hidden_layers: 2 ** 31 - 1 }],
  ['n_routed_experts', { n_routed_experts: 2 ** 30, n_group: 1, topk_group: 1 }],
  ['hidden_size', { hidden_size: 2 ** 31 - 1 }],
  ['vocab_size', { vocab_size: 2 ** 24 }],
  ['moe_intermediate_size', { moe_intermediate_size: 2 ** 31 - 1 }],
  ['kv_lora_rank', { kv_lora_rank: 2 ** 31 - 1 }],
  ['model_type', { model_type: 'llama' }],
])('a config.json alone that says too much is refused by its %s', async (key, changed) => {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...deepseekV32, ...changed }));
  await expect(shapesIn(directory)).rejects.toThrow(new RegExp(`^[^\n]*\\b${key}\\b[^\n]*$`));
});
