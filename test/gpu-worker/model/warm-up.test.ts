import { expect, test } from 'vitest';
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import { expandedRowsMin } from '../../../gpu-worker/backend/attention-plan.ts';
import { warmUp } from '../../../gpu-worker/model/warm-up.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import { openForTest, runAlone } from '../../support/worker/model-harness.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const config = { ...randomConfig('V3.2 with everything', 3), max_position_embeddings: 400 };
const directory = writeRandomCheckpoint(temporaryDirectory(), config, {
  seed: 3,
  dtype: 'F32',
  shards: 1,
});

test('the warm-up runs every kind of step at its largest, and leaves the model as it was', async () => {
  const opened = await openForTest(directory, { rowsMax: 300, blocks: 3, absorb: 'decode' });
  const fresh = await openForTest(directory, { rowsMax: 300, blocks: 3, absorb: 'decode' });
  const batches: Batch[] = [];
  const { model } = opened;
  const watched = {
    ...model,
    contextLength: model.contextLength,
    limits: { rowsMax: 300, logitRowsMax: 16 },
    blocks: model.blocks,
    forward: (batch: Batch) => {
      batches.push(batch);
      model.forward(batch);
    },
    logits: model.logits.bind(model),
    sample: model.sample.bind(model),
  };
  warmUp(watched);

  const shapes = batches.map(({ tokens, positions, blockTables }) => ({
    rows: tokens.length,
    sequences: blockTables.length,
    tokens: Math.max(...positions) + 1,
  }));
  for (const tokens of [300, 400])
    expect(shapes).toContainEqual({ rows: 300, sequences: 1, tokens });
  for (const tokens of [1, 400]) expect(shapes).toContainEqual({ rows: 1, sequences: 1, tokens });
  expect(shapes).toContainEqual({ rows: 16, sequences: 16, tokens: 400 });
  expect(shapes).toContainEqual({ rows: 2 * expandedRowsMin, sequences: 2, tokens: 400 });

  const tokens = Array.from({ length: 150 }, (_, i) => (i * 7) % config.vocab_size);
  expect(runAlone(opened, tokens)).toEqual(runAlone(fresh, tokens));
  await opened.close();
  await fresh.close();
});
