import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing } from '../../../gpu-worker/at.ts';
import { score } from '../../../gpu-worker/model/score.ts';
import { maxDifference } from '../../support/worker/golden.ts';
import { openForTest } from '../../support/worker/model-harness.ts';
import type { OpenedModel } from '../../support/worker/model-harness.ts';

interface ExpectedAnswer {
  readonly prompt: string;
  readonly input_ids: number[];
  readonly mean_nll: number;
  readonly last_logits: number[];
  readonly greedy: number[];
}

const directory = fileURLToPath(new URL('../../../gpu-worker/models/tiny/', import.meta.url));
// The file is ours; an independent implementation wrote it in float32.
const answers = JSON.parse(readFileSync(`${directory}expected.json`, 'utf8')) as ExpectedAnswer[];

describe('the tiny model', () => {
  let opened: OpenedModel;

  beforeAll(async () => {
    opened = await openForTest(directory, { rowsMax: 512, blocks: 54, threads: 2 });
  });
  afterAll(() => opened.close());

  const named = answers.map((answer) => ({ ...answer, end: answer.prompt.slice(-40) }));

  test.each(named)('answers "...$end" as expected', ({ input_ids: ids, ...expected }) => {
    const last = ids.length - 1;
    const scores = score(opened.model, ids, {
      positions: [last],
      greedyTokens: expected.greedy.length,
    });
    expect(scores.greedy).toEqual(expected.greedy);
    // Float32 on both sides; 4e-6 and 1.3e-4 were seen, on logits of up to 15.
    expect(Math.abs(Number(scores.meanNll) - expected.mean_nll)).toBeLessThan(1e-5);
    expect(maxDifference(scores.logits[last] ?? missing(), expected.last_logits)).toBeLessThan(
      5e-4,
    );
  });
});
