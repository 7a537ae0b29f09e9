import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { loadOracle } from '../../oracle/checkpoint.ts';
import { oracleForward } from '../../oracle/forward.ts';
import { introselect } from '../../oracle/introselect.ts';
import { argmax, maxDifference, meanNll, readGolden } from '../../support/worker/golden.ts';
import { openForTest, runAlone } from '../../support/worker/model-harness.ts';
import type { OpenedModel, Transcript } from '../../support/worker/model-harness.ts';
import { withPinnedSelection } from '../../support/worker/pinned-selection.ts';
import type { Picks } from '../../support/worker/pinned-selection.ts';

describe("the model on the golden dsv32-f32, with the generator's picks among equal scores", () => {
  const golden = readGolden('dsv32-f32');
  const tokens = golden.input_ids;
  const oracle = loadOracle(golden.directory);
  const picksFor = (ids: number[]) => oracleForward(oracle, ids, { pick: introselect }).selected;
  let picks: Picks = picksFor(tokens);
  let opened: OpenedModel;
  let said: Transcript;

  beforeAll(async () => {
    opened = await openForTest(golden.directory, {
      wrap: (backend) => withPinnedSelection(backend, () => picks),
    });
    said = runAlone(opened, tokens);
  });
  afterAll(() => opened.close());

  test('gives the golden logits, argmax and mean_nll', () => {
    for (const position of golden.positions) {
      expect(maxDifference(at(said.logits, position), golden.logits[position] ?? [])).toBeLessThan(
        2e-4,
      );
    }
    expect(said.logits.map(argmax)).toEqual(golden.argmax);
    expect(Math.abs(meanNll(said.logits, tokens) - golden.mean_nll)).toBeLessThan(1e-5);
  });

  test('has hidden states of the golden norms', () => {
    golden.hidden_norms.forEach((norms, stage) => {
      const found = golden.positions.map((p) => Math.hypot(...at(at(said.hidden, stage), p)));
      expect(maxDifference(found, norms)).toBeLessThan(2e-4);
    });
  });

  test('continues greedily with exactly the golden 24 tokens', () => {
    const ids = [...tokens];
    // The generator computed the whole sequence anew for each token; its ties depend on the length.
    for (let i = 0; i < golden.greedy.length; i++) {
      picks = picksFor(ids);
      ids.push(argmax(at(runAlone(opened, ids).logits, ids.length - 1)));
    }
    expect(ids.slice(tokens.length)).toEqual(golden.greedy);
  });
});
