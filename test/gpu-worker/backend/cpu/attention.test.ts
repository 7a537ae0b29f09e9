import { describe, expect, test } from 'vitest';
import { CpuBackend } from '../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuLayerCache, asCpu } from '../../../../gpu-worker/backend/cpu/handles.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  AttentionCase,
  oddShape,
  oneHeadShape,
  randomSequence,
  rowsOfAttended,
  wideShape,
} from '../../../support/gpu/attention-case.ts';
import type { Attended } from '../../../support/gpu/attention-case.ts';
import {
  allNumerics,
  difference,
  f32Numerics,
  fp8Numerics,
  openTested,
  openTwin,
  shuffledBlocks,
} from '../../../support/gpu/backends.ts';

const shapes = [
  { name: 'odd sizes', shape: oddShape, tokens: 330 },
  { name: 'several scales', shape: wideShape, tokens: 140 },
  { name: 'one head, top 1', shape: oneHeadShape, tokens: 140 },
];
const blocks = 9;
const tensors = ['sparse', 'lse', 'dense', 'expandedSparse', 'expandedDense'] as const;

describe.each(allNumerics)('attention in $name numerics', ({ numerics }) => {
  test.each(shapes)('with $name is the twin’s, step after step', async ({ shape, tokens }) => {
    const seed = shape.latentDim;
    const tested = await openTested(numerics);
    const run = (backend: typeof tested) => {
      const random = seededRandom(seed);
      const layer = new AttentionCase(backend, shape, random, blocks);
      const order = shuffledBlocks(random, blocks);
      const first = {
        inputs: randomSequence(random, shape, tokens),
        blockTable: order.slice(0, 6),
      };
      const second = { inputs: randomSequence(random, shape, 66), blockTable: order.slice(6) };
      // The sizes are odd, so the last rows of the first sequence see more than one block of 256
      // keys.
      const [cut, end] = [Math.floor(tokens * 0.45), tokens - 34];
      return [
        layer.run([{ ...first, start: 0, rows: cut }]),
        layer.run([
          { ...first, start: cut, rows: end - cut },
          { ...second, start: 0, rows: 1 },
        ]),
        layer.run([
          { ...second, start: 1, rows: 65 },
          { ...first, start: end, rows: 3 },
        ]),
        layer.run([{ ...first, start: end + 3, rows: 1 }]),
      ];
    };
    const expected = run(openTwin(numerics));
    // A bfloat16 unit of an expanded key or value may fall either way.
    const limit = numerics.activations === 'bf16' ? 2 ** -7 : 1e-5;
    for (const [step, actual] of run(tested).entries()) {
      expect(actual.selected, `step ${step}`).toEqual(expected[step]?.selected);
      for (const which of tensors) {
        const twin = expected[step]?.[which] ?? new Float32Array(0);
        expect(difference(actual[which], twin), `${which}, step ${step}`).toBeLessThan(limit);
      }
    }
    await tested.backend.close();
  });

  test('says the same bits alone and in a batch, in any chunks, on any pages, with two threads', async () => {
    const shape = oddShape;
    const random = seededRandom(31);
    const long = randomSequence(random, shape, 150);
    const short = randomSequence(random, shape, 70);
    const run = async (
      threads: number,
      steps: (layer: AttentionCase, tables: [Int32Array, Int32Array]) => Attended[],
    ) => {
      const tested = await openTested(numerics, { threads });
      const layer = new AttentionCase(tested, shape, seededRandom(32), blocks);
      const order = shuffledBlocks(random, blocks);
      const results = steps(layer, [order.slice(0, 3), order.slice(3, 5)]);
      await tested.backend.close();
      return results;
    };
    const [whole] = await run(1, (layer, [blockTable]) => [
      layer.run([{ inputs: long, blockTable, start: 0, rows: 150 }]),
    ]);
    const chunks = await run(2, (layer, [blockTable, other]) =>
      [0, 1, 2, 65, 128, 149].map((start, i, starts) => {
        const rows = (starts[i + 1] ?? 150) - start;
        const company = { inputs: short, blockTable: other, start: i, rows: 1 };
        const result = layer.run([company, { inputs: long, blockTable, start, rows }]);
        return rowsOfAttended(result, 1, rows);
      }),
    );
    let row = 0;
    for (const chunk of chunks) {
      const rows = chunk.selected.length;
      expect(whole && rowsOfAttended(whole, row, rows)).toEqual(chunk);
      row += rows;
    }
    expect(row).toBe(150);
  });

  test('to a selection of everything is, bit for bit, attention to everything', async () => {
    const shape = { ...oddShape, topK: 150 };
    const tested = await openTested(numerics);
    const random = seededRandom(33);
    const layer = new AttentionCase(tested, shape, random, blocks);
    const part = { inputs: randomSequence(random, shape, 150), blockTable: Int32Array.of(5, 0, 7) };
    const result = layer.run([{ ...part, start: 0, rows: 150 }]);
    expect(result.sparse).toEqual(result.dense);
    expect(result.expandedSparse).toEqual(result.expandedDense);
    await tested.backend.close();
  });
});

describe('attention', () => {
  test('is the same with and without absorption when kv_b is the identity', async () => {
    // One head whose nope part is the latent itself and whose value is the latent again.
    const { backend, filled } = await openTested(f32Numerics);
    const dim = 16;
    const [cache] = backend.caches.make({
      layers: 1,
      blocks: 1,
      latentDim: dim,
      ropeDim: 4,
      indexDim: 0,
    });
    if (cache === undefined) throw new Error('no cache was made');
    const eye = Float32Array.from({ length: 2 * dim * dim }, (_, i) =>
      Math.floor(i / dim) % dim === i % dim ? 1 : 0,
    );
    const source = { name: 'kv_b', dtype: 'F32', shape: [2 * dim, dim], scales: null } as const;
    const kvB = backend.weights.matrix({ ...source, bytes: new Uint8Array(eye.buffer) });
    const random = seededRandom(34);
    const values = Float32Array.from({ length: 40 * (dim + 4) }, () => random.normal());
    const positions = Int32Array.from({ length: 40 }, (_, r) => r);
    const batch = { tokens: positions, positions, slots: positions, sequences: new Int32Array(40) };
    backend.batch.begin({ ...batch, blockTables: [Int32Array.of(0)] });
    const x = filled(values, dim + 4);
    backend.caches.writeLatent(cache, x);
    const [absorbed, expanded] = [backend.memory.tensor(40, dim), backend.memory.tensor(40, dim)];
    const options = { heads: 1, scale: 0.2 };
    backend.attention.attend(absorbed, x, cache, null, options);
    const dims = { nopeDim: dim, ropeDim: 4, valueDim: dim };
    backend.attention.attendExpanded(expanded, x, cache, kvB, null, { ...options, ...dims });
    const limit = difference(backend.memory.read(absorbed, 40), backend.memory.read(expanded, 40));
    expect(limit).toBeLessThan(2e-6);
    await backend.close();
  });

  test('does not see what lies in pages behind the sequence’s end', async () => {
    for (const numerics of [f32Numerics, fp8Numerics]) {
      // oxlint-disable-next-line no-await-in-loop
      const tested = await openTested(numerics);
      const layer = new AttentionCase(tested, oddShape, seededRandom(35), blocks);
      const { arena } = asCpu(CpuBackend, tested.backend).context;
      const inputs = randomSequence(seededRandom(36), oddShape, 40);
      const part = { inputs, blockTable: Int32Array.of(4), start: 0, rows: 40 };
      const clean = layer.run([part]);
      // 0xff is NaN in float32, bfloat16 and e4m3 alike.
      const place = asCpu(CpuLayerCache, layer.cache);
      arena.u8.fill(255, place.latents, place.latents + 4 * 64 * place.entryBytes);
      arena.u8.fill(
        255,
        place.latents + (4 * 64 + 40) * place.entryBytes,
        place.latents + 9 * 64 * place.entryBytes,
      );
      expect(layer.run([part])).toEqual(clean);
      // oxlint-disable-next-line no-await-in-loop
      await tested.backend.close();
    }
  });
});
