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

const goldens = [
  { name: 'dsv32-f32', tolerance: 2e-4 },
  { name: 'dsv32-fp8', tolerance: 2e-3 },
  { name: 'glm-dsa-f32', tolerance: 2e-4 },
] as const;

describe.each(goldens)('the model on the golden $name', ({ name, tolerance }) => {
  const golden = readGolden(name);
  const tokens = golden.input_ids;
  const expected = oracleForward(loadOracle(golden.directory), tokens);
  let opened: OpenedModel;
  let oneShot: Transcript;

  beforeAll(async () => {
    opened = await openForTest(golden.directory);
    oneShot = runAlone(opened, tokens);
  });
  afterAll(() => opened.close());

  test('gives the golden logits, argmax and mean_nll', () => {
    const positions = golden.positions.map(String);
    expect(Object.keys(golden.logits)).toEqual(positions);
    for (const [position, logits] of Object.entries(golden.logits)) {
      expect(maxDifference(at(oneShot.logits, Number(position)), logits)).toBeLessThan(tolerance);
    }
    expect(oneShot.logits.map(argmax)).toEqual(golden.argmax);
    expect(Math.abs(meanNll(oneShot.logits, tokens) - golden.mean_nll)).toBeLessThan(1e-5);
  });

  test('selects exactly the golden tokens, in the layers that select', () => {
    const selecting = oneShot.selected.flatMap((rows, layer) => (rows.length > 0 ? [layer] : []));
    expect(selecting.map(String)).toEqual(Object.keys(golden.selected_tokens));
    for (const [layer, rows] of Object.entries(golden.selected_tokens)) {
      for (const [position, chosen] of Object.entries(rows)) {
        const found = at(at(oneShot.selected, Number(layer)), Number(position));
        expect([...found]).toEqual(chosen);
      }
    }
  });

  test('has hidden states of the golden norms at every stage', () => {
    expect(oneShot.hidden).toHaveLength(golden.hidden_norms.length);
    golden.hidden_norms.forEach((norms, stage) => {
      const found = golden.positions.map((p) => Math.hypot(...at(at(oneShot.hidden, stage), p)));
      expect(maxDifference(found, norms)).toBeLessThan(2e-4);
    });
  });

  test('gives the logits of the oracle at every position', () => {
    oneShot.logits.forEach((logits, position) => {
      expect(maxDifference(logits, at(expected.logits, position))).toBeLessThan(tolerance);
    });
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

  test('continues greedily with exactly the golden 24 tokens', () => {
    expect(continueGreedily(opened, tokens, 24)).toEqual(golden.greedy);
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
