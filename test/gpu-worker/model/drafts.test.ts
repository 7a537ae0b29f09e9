/** The MTP module against the oracle, and against itself in other batches. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { loadOracle } from '../../oracle/checkpoint.ts';
import { oracleDrafts } from '../../oracle/forward.ts';
import { seededRandom } from '../../support/random.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import type { ModelKind } from '../../support/weights/checkpoint-config.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import { calcDiff, maxDifference } from '../../support/worker/golden.ts';
import { buildBatch, openForTest, scatterBlocks } from '../../support/worker/model-harness.ts';
import type { OpenedModel } from '../../support/worker/model-harness.ts';

const directory = temporaryDirectory();
const kinds: ModelKind[] = [
  'V3.2 with everything',
  'V3 with a single query projection',
  'GLM with shared selections',
];
const length = 70;

describe.each(kinds)('the MTP module of %s', (kind) => {
  const seed = 300 + kinds.indexOf(kind);
  const config = { ...randomConfig(kind, seed), num_nextn_predict_layers: 1 };
  const path = join(directory, String(seed));
  writeRandomCheckpoint(path, config, { seed, dtype: 'BF16', shards: 1 });
  const random = seededRandom(seed + 1);
  const tokens = Array.from({ length }, () => random.integer(0, config.vocab_size - 1));
  const oracle = loadOracle(path);

  // The same sums of float32 as in the layers before it.
  test('agrees with the oracle in float32', async () => {
    const opened = await openForTest(path, { drafts: true });
    const said = draftInChunks(opened, tokens, length);
    await opened.close();
    const expected = oracleDrafts(oracle, tokens);
    expect(said).toHaveLength(length - 1);
    said.forEach((logits, row) =>
      expect(maxDifference(logits, at(expected, row))).toBeLessThan(5e-5),
    );
  });

  // Selections of the oracle and the model may differ by ties, so most rows agree, not all.
  test('agrees with the oracle in the deployment numerics', async () => {
    const opened = await openForTest(path, { drafts: true, numerics: 'fp8' });
    const said = draftInChunks(opened, tokens, length);
    await opened.close();
    const expected = oracleDrafts(oracle, tokens, { quantized: true });
    const differences = said.map((row, t) => calcDiff(row, at(expected, t)));
    const middle = differences.toSorted((a, b) => a - b)[Math.floor(differences.length / 2)];
    expect(middle).toBeLessThan(1e-3);
  });

  test('drafts the same bits however its rows are cut into steps', async () => {
    const opened = await openForTest(path, { drafts: true });
    const whole = draftInChunks(opened, tokens, length);
    const pieces = draftInChunks(opened, tokens, 7);
    await opened.close();
    expect(pieces).toEqual(whole);
  });
});

test('a model that is opened without drafts has no MTP module', async () => {
  const path = join(directory, '300');
  const plain = await openForTest(path);
  expect(plain.model.draft).toBeNull();
  await plain.close();
});

/** The draft logits of every position with a next token, computed `chunk` tokens a step. */
function draftInChunks(
  { model }: OpenedModel,
  tokens: readonly number[],
  chunk: number,
): Float32Array[] {
  const followers = tokens.slice(1);
  const blockTables = scatterBlocks([tokens], { blocks: model.blocks, seed: 1 });
  const rows: Float32Array[] = [];
  for (let start = 0; start < followers.length; start += chunk) {
    const count = Math.min(chunk, followers.length - start);
    const step = [{ sequence: 0, count }];
    const done = { done: [start], blockTables };
    model.forward(buildBatch(step, { ...done, sequences: [tokens] }));
    const all = Int32Array.from({ length: count }, (_, row) => row);
    const { draft } = model;
    if (draft === null) throw new Error('the model was opened without its MTP module');
    draft(buildBatch(step, { ...done, sequences: [followers] }), all);
    const logits = model.logits(all);
    for (let row = 0; row < count; row++) {
      rows.push(logits.slice(row * model.vocabSize, (row + 1) * model.vocabSize));
    }
  }
  return rows;
}
