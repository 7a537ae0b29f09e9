import { describe, expect, test } from 'vitest';
import {
  argmax,
  goldenNames,
  maxDifference,
  meanNll,
  readGolden,
} from '../support/worker/golden.ts';
import { loadOracle } from './checkpoint.ts';
import { oracleForward } from './forward.ts';
import type { OracleResult } from './forward.ts';

/** Float64 against float32, and logits rounded to 6 digits in the file: 1e-5 was seen. */
const logitTolerance = 1e-4;

describe.each(goldenNames)('the oracle on the golden %s', (name) => {
  const golden = readGolden(name);
  const oracle = loadOracle(golden.directory);
  const result = oracleForward(oracle, golden.input_ids);

  test('gives the golden logits', () => {
    for (const position of golden.positions) {
      const expected = golden.logits[position] ?? [];
      expect(maxDifference(result.logits[position] ?? [], expected)).toBeLessThan(logitTolerance);
    }
  });

  test('gives the golden argmax at every position and the golden mean_nll', () => {
    expect(result.logits.map(argmax)).toEqual(golden.argmax);
    expect(meanNll(result.logits, golden.input_ids)).toBeCloseTo(golden.mean_nll, 5);
  });

  test('selects exactly the golden tokens, in the layers that select', () => {
    const selecting = result.selected.flatMap((rows, layer) => (rows.length > 0 ? [layer] : []));
    expect(selecting.map(String)).toEqual(Object.keys(golden.selected_tokens));
    for (const [layer, rows] of Object.entries(golden.selected_tokens)) {
      for (const [position, tokens] of Object.entries(rows)) {
        expect(result.selected[Number(layer)]?.[Number(position)]).toEqual(tokens);
      }
    }
  });

  test('has hidden states of the golden norms at every stage', () => {
    expect(result.hidden).toHaveLength(golden.hidden_norms.length);
    golden.hidden_norms.forEach((norms, stage) => {
      const found = golden.positions.map((position) => normOf(result, stage, position));
      expect(maxDifference(found, norms)).toBeLessThan(1e-4);
    });
  });

  test('continues greedily with exactly the golden tokens', () => {
    const { input_ids: prompt, greedy } = golden;
    const { logits } = oracleForward(oracle, [...prompt, ...greedy.slice(0, -1)]);
    expect(logits.slice(prompt.length - 1).map(argmax)).toEqual(greedy);
  });

  test('gives the same logits with absorbed attention', () => {
    const absorbed = oracleForward(oracle, golden.input_ids, { absorbed: true });
    absorbed.logits.forEach((logits, position) => {
      expect(maxDifference(logits, result.logits[position] ?? [])).toBeLessThan(1e-10);
    });
  });
});

function normOf(result: OracleResult, stage: number, position: number): number {
  return Math.hypot(...(result.hidden[stage]?.[position] ?? []));
}
