import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { loadOracle } from '../../oracle/checkpoint.ts';
import { oracleForward } from '../../oracle/forward.ts';
import { argmax, maxDifference, meanNll, readGolden } from '../../support/worker/golden.ts';
import {
  continueGreedily,
  inChunks,
  interleaved,
  openForTest,
  runAlone,
  runSchedule,
} from '../../support/worker/model-harness.ts';
import type { OpenedModel, Transcript } from '../../support/worker/model-harness.ts';
import { firstDifference } from '../../support/worker/transcripts.ts';

/**
 * `untied`: golden positions that no tie among index scores touches (test/goldens/README.md); the
 * others are compared with the oracle, which is itself compared with the file.
 */
const goldens = [
  { name: 'dsv32-f32', tolerance: 2e-4, untied: [0, 1, 15, 16] },
  { name: 'dsv32-fp8', tolerance: 2e-3, untied: [0, 1, 23, 24, 75, 148, 149] },
] as const;

describe.each(goldens)('the model on the golden $name', ({ name, tolerance, untied }) => {
  const golden = readGolden(name);
  const tokens = golden.input_ids;
  const oracle = loadOracle(golden.directory);
  const expected = oracleForward(oracle, tokens);
  let opened: OpenedModel;
  let oneShot: Transcript;

  beforeAll(async () => {
    opened = await openForTest(golden.directory);
    oneShot = runAlone(opened, tokens);
  });
  afterAll(() => opened.close());

  test('gives the golden logits, selections and norms where ties leave no choice', () => {
    for (const position of untied) {
      const index = golden.positions.indexOf(position);
      const logits = golden.logits[position] ?? [];
      expect(maxDifference(at(oneShot.logits, position), logits)).toBeLessThan(tolerance);
      for (const [layer, rows] of Object.entries(golden.selected_tokens)) {
        expect([...at(at(oneShot.selected, Number(layer)), position)]).toEqual(rows[position]);
      }
      golden.hidden_norms.forEach((norms, stage) => {
        expect(Math.hypot(...at(at(oneShot.hidden, stage), position))).toBeCloseTo(
          at(norms, index),
          3,
        );
      });
    }
  });

  test('gives the logits, the argmax and the mean_nll of the oracle at every position', () => {
    oneShot.logits.forEach((logits, position) => {
      expect(maxDifference(logits, at(expected.logits, position))).toBeLessThan(tolerance);
    });
    expect(oneShot.logits.map(argmax)).toEqual(expected.logits.map(argmax));
    const difference = meanNll(oneShot.logits, tokens) - meanNll(expected.logits, tokens);
    expect(Math.abs(difference)).toBeLessThan(1e-5);
    if (name === 'dsv32-fp8') {
      expect(oneShot.logits.map(argmax)).toEqual(golden.argmax);
      expect(Math.abs(meanNll(oneShot.logits, tokens) - golden.mean_nll)).toBeLessThan(1e-5);
    }
  });

  test('selects exactly the tokens of the oracle in every layer, at every position', () => {
    const selected = oneShot.selected.map((rows) => rows.map((row) => [...row]));
    expect(selected).toEqual(expected.selected);
  });

  test('has the hidden states of the oracle after every stage', () => {
    oneShot.hidden.forEach((rows, stage) =>
      rows.forEach((row, position) => {
        expect(maxDifference(row, at(at(expected.hidden, stage), position))).toBeLessThan(
          tolerance,
        );
      }),
    );
  });

  test('says the same bits with prefill chunks of every size, and token by token', () => {
    for (let chunk = 1; chunk < tokens.length; chunk++) {
      const schedule = inChunks(tokens.length, chunk);
      const chunked = at(runSchedule(opened, [tokens], { schedule, blockSeed: chunk }), 0);
      const difference = firstDifference(chunked, oneShot);
      expect(difference, `chunks of ${chunk}`).toBe(null);
    }
  });

  test('says the same bits in a batch with others, some prefilling and some decoding', () => {
    const others = [tokens.slice(5, 90), tokens.slice(40).toReversed(), tokens.slice(0, 1)];
    const sequences = [at(others, 0), tokens, at(others, 1), at(others, 2)];
    for (const seed of [1, 2, 3]) {
      const lengths = sequences.map(({ length }) => length);
      const schedule = interleaved(lengths, { seed, chunkMax: 60 });
      const transcripts = runSchedule(opened, sequences, { schedule, blockSeed: seed });
      expect(firstDifference(at(transcripts, 1), oneShot), `seed ${seed}`).toBe(null);
    }
  });

  test('says the same bits with two threads', async () => {
    const threaded = await openForTest(golden.directory, { threads: 2 });
    expect(firstDifference(runAlone(threaded, tokens), oneShot)).toBe(null);
    await threaded.close();
  });

  test('continues greedily with exactly the 24 tokens', () => {
    const greedy = continueGreedily(opened, tokens, 24);
    // Greedy continuation is right if the oracle, given it, would have gone on in the same way.
    const { logits } = oracleForward(oracle, [...tokens, ...greedy.slice(0, -1)]);
    expect(greedy).toEqual(logits.slice(tokens.length - 1).map(argmax));
    if (name === 'dsv32-fp8') expect(greedy).toEqual(golden.greedy);
  });

  test('agrees without weight absorption to the same tolerance', async () => {
    const expanded = await openForTest(golden.directory, { absorb: 'never' });
    const transcript = runAlone(expanded, tokens);
    expect(transcript.selected).toEqual(oneShot.selected);
    transcript.logits.forEach((logits, position) => {
      expect(maxDifference(logits, at(oneShot.logits, position))).toBeLessThan(tolerance);
    });
    await expanded.close();
  });
});
