import { describe, expect, test } from 'vitest';
import type { Batch } from '../../../../gpu-worker/backend/batch.ts';
import type { Numerics } from '../../../../gpu-worker/backend/numerics.ts';
import type { LayerCache } from '../../../../gpu-worker/backend/shapes.ts';
import { CpuBackend } from '../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuLayerCache, asCpu } from '../../../../gpu-worker/backend/cpu/handles.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  batchOf,
  f32Numerics,
  fp8Numerics,
  openTested,
  randomFloats,
} from '../../../support/gpu/backends.ts';

const v32 = { layers: 1, blocks: 3, latentDim: 512, ropeDim: 64, indexDim: 128 };

/** One row written at `slot`: the bytes of the layer's two caches. */
async function written(
  numerics: Numerics,
  shape: typeof v32,
  row: { slot: number; entry: Float32Array; key: Float32Array },
): Promise<{ latents: DataView; keys: DataView; entryBytes: number; pageBytes: number }> {
  const { backend, filled } = await openTested(numerics);
  const [cache] = backend.caches.make(shape);
  const block = Math.floor(row.slot / 64);
  backend.batch.begin(
    batchOf([{ start: row.slot % 64, rows: 1, blockTable: Int32Array.of(block) }]),
  );
  if (cache === undefined) throw new Error('no cache was made');
  backend.caches.writeLatent(cache, filled(row.entry, row.entry.length));
  backend.caches.writeIndexKeys(cache, filled(row.key, row.key.length));
  const { arena } = asCpu(CpuBackend, backend).context;
  const place = asCpu(CpuLayerCache, cache);
  const bytes = (at: number, count: number) => new DataView(arena.u8.slice(at, at + count).buffer);
  await backend.close();
  return {
    latents: bytes(place.latents, shape.blocks * 64 * place.entryBytes),
    keys: bytes(place.keys, shape.blocks * place.pageBytes),
    entryBytes: place.entryBytes,
    pageBytes: place.pageBytes,
  };
}

/** e4m3 by the definition of its fields. */
function e4m3(code: number): number {
  const [sign, exponent, mantissa] = [code >> 7 ? -1 : 1, (code >> 3) & 15, code & 7];
  return sign * (exponent === 0 ? mantissa / 512 : (8 + mantissa) * 2 ** (exponent - 10));
}

/** Within half a unit of a 3-bit mantissa, or of the smallest step. */
function isRounded(code: number, value: number, scale: number): boolean {
  const error = Math.abs(e4m3(code) * scale - value);
  return error <= Math.max(Math.abs(value) / 16, scale / 1024) * 1.0001;
}

describe('the caches', () => {
  test('take 656 and 132 bytes per token in fp8 with the published dimensions', async () => {
    const { backend } = await openTested(fp8Numerics);
    expect(backend.caches.blockBytes({ ...v32, layers: 61 })).toBe(61 * 64 * (656 + 132));
    const before = backend.memory.use().cacheBytes;
    backend.caches.make(v32);
    const taken = backend.memory.use().cacheBytes - before;
    expect(taken).toBeGreaterThanOrEqual(3 * 64 * (656 + 132));
    expect(taken).toBeLessThan(3 * 64 * (656 + 132) + 1000);
    await backend.close();
  });

  test('take 132 bytes less in layers that have no index keys', async () => {
    const { backend } = await openTested(fp8Numerics);
    // GLM-5.2: 21 of 78 layers select.
    const keylessLayers = new Set(Array.from({ length: 57 }, (_, i) => 21 + i));
    const glm = { ...v32, layers: 78, keylessLayers };
    expect(backend.caches.blockBytes(glm)).toBe(64 * (78 * 656 + 21 * 132));
    const some = { ...v32, layers: 3, keylessLayers: new Set([1]) };
    const before = backend.memory.use().cacheBytes;
    const caches = backend.caches.make(some);
    const taken = backend.memory.use().cacheBytes - before;
    expect(taken).toBeGreaterThanOrEqual(3 * 64 * (3 * 656 + 2 * 132));
    expect(taken).toBeLessThan(3 * 64 * (3 * 656 + 2 * 132) + 3000);
    backend.batch.begin(batchOf([{ start: 0, rows: 1, blockTable: Int32Array.of(0) }]));
    const keys = backend.memory.tensor(1, 128);
    for (const [layer, cache] of caches.entries()) {
      const write = () => backend.caches.writeIndexKeys(cache, keys);
      if (layer === 1) expect(write).toThrow(/without index keys/);
      else expect(write).not.toThrow();
    }
    await backend.close();
  });

  test('take floats, padded to four, in float32', async () => {
    const { backend } = await openTested(f32Numerics);
    const shape = { layers: 2, latentDim: 37, ropeDim: 6, indexDim: 10 };
    expect(backend.caches.blockBytes(shape)).toBe(2 * 64 * (44 * 4 + 10 * 4));
    expect(backend.caches.blockBytes({ ...shape, indexDim: 0 })).toBe(2 * 64 * 44 * 4);
    await backend.close();
  });

  test('lay an fp8 entry out as latent codes, a float scale per 128, then the rope part in bf16', async () => {
    const random = seededRandom(51);
    const entry = randomFloats(random, 576, 3);
    // The second group is all zeros: its scale comes from the floor of amax.
    entry.fill(0, 128, 256);
    const slot = 64 + 37;
    const key = randomFloats(random, 128);
    const { latents, entryBytes } = await written(fp8Numerics, v32, { slot, entry, key });
    expect(entryBytes).toBe(656);
    const at = slot * 656;
    for (let group = 0; group < 4; group++) {
      const values = entry.subarray(group * 128, (group + 1) * 128);
      const amax = Math.max(1e-4, ...values.map(Math.abs));
      const scale = latents.getFloat32(at + 512 + group * 4, true);
      expect(scale).toBe(2 ** Math.ceil(Math.log2(amax / 448)));
      values.forEach((value, i) => {
        expect(isRounded(latents.getUint8(at + group * 128 + i), value, scale)).toBe(true);
      });
    }
    for (let i = 0; i < 64; i++) {
      const value = entry[512 + i] ?? 0;
      const bits = latents.getUint16(at + 528 + i * 2, true);
      const read = new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? 0;
      expect(Math.abs(read - value)).toBeLessThanOrEqual(Math.abs(value) / 256);
    }
    for (let i = 0; i < latents.byteLength; i++) {
      if (i < at || i >= at + 656) expect(latents.getUint8(i)).toBe(0);
    }
  });

  test('lay a page of index keys out as 64 rows of codes, then 64 float scales', async () => {
    const random = seededRandom(52);
    const key = randomFloats(random, 128, 5);
    const slot = 2 * 64 + 5;
    const entry = randomFloats(random, 576);
    const { keys, pageBytes } = await written(fp8Numerics, v32, { slot, entry, key });
    expect(pageBytes).toBe(64 * 132);
    const page = 2 * 64 * 132;
    const scale = keys.getFloat32(page + 64 * 128 + 5 * 4, true);
    expect(scale).toBe(2 ** Math.ceil(Math.log2(Math.max(...key.map(Math.abs)) / 448)));
    key.forEach((value, i) => {
      expect(isRounded(keys.getUint8(page + 5 * 128 + i), value, scale)).toBe(true);
    });
    for (let i = 0; i < keys.byteLength; i++) {
      const inKey = i >= page + 5 * 128 && i < page + 6 * 128;
      const inScale = i >= page + 64 * 128 + 20 && i < page + 64 * 128 + 24;
      if (!inKey && !inScale) expect(keys.getUint8(i)).toBe(0);
    }
  });

  test('have powers of two as scales whatever the linear ops have', async () => {
    const random = seededRandom(53);
    const key = randomFloats(random, 128);
    const numerics = { ...fp8Numerics, scaleFormat: 'f32' } as const;
    const { keys } = await written(numerics, v32, {
      slot: 0,
      entry: randomFloats(random, 576),
      key,
    });
    const amax = Math.max(...key.map(Math.abs));
    expect(keys.getFloat32(64 * 128, true)).toBe(2 ** Math.ceil(Math.log2(amax / 448)));
  });
});

describe('a step refuses', () => {
  const part = { start: 0, rows: 2, blockTable: Int32Array.of(1) };
  const good = batchOf([part]);
  const refused: [string, Batch, RegExp][] = [
    ['no rows', batchOf([]), /a step of 0 rows/],
    ['more rows than were planned', batchOf([{ ...part, rows: 5 }]), /a step of 5 rows; 4 fit/],
    ['columns of different lengths', { ...good, slots: Int32Array.of(64) }, /equally long/],
    ['a block that there is not', { ...good, blockTables: [Int32Array.of(3)] }, /names a block/],
    ['a table that is too short', { ...good, blockTables: [new Int32Array(0)] }, /shorter/],
    ['a slot elsewhere', { ...good, slots: Int32Array.of(64, 66) }, /does not lie where/],
    ['a sequence that there is not', { ...good, sequences: Int32Array.of(0, 1) }, /no sequence 1/],
    [
      'positions that go back',
      { ...good, positions: Int32Array.of(1, 0) },
      /must ascend|does not lie/,
    ],
    ['a negative position', { ...good, positions: Int32Array.of(-1, 1) }, /must ascend/],
    [
      'a sequence in two places',
      {
        ...batchOf([part, { ...part, rows: 1, blockTable: Int32Array.of(2) }]),
        sequences: Int32Array.of(0, 1, 0),
      },
      /adjacent|does not lie/,
    ],
  ];
  test.each(refused)('%s', async (_, batch, message) => {
    const { backend } = await openTested(f32Numerics, { rowsMax: 4 });
    backend.caches.make({ layers: 1, blocks: 3, latentDim: 4, ropeDim: 2, indexDim: 4 });
    expect(() => backend.batch.begin(batch)).toThrow(message);
    await backend.close();
  });
});

describe('cache ops refuse', () => {
  test('index keys where there are none, and entries of another width', async () => {
    const { backend } = await openTested(f32Numerics);
    const [cache] = backend.caches.make({
      layers: 1,
      blocks: 1,
      latentDim: 4,
      ropeDim: 2,
      indexDim: 0,
    });
    const known: LayerCache | undefined = cache;
    if (known === undefined) throw new Error('no cache was made');
    backend.batch.begin(batchOf([{ start: 0, rows: 1, blockTable: Int32Array.of(0) }]));
    expect(() => backend.caches.writeIndexKeys(known, backend.memory.tensor(1, 4))).toThrow(
      /without index keys/,
    );
    expect(() => backend.caches.writeLatent(known, backend.memory.tensor(1, 5))).toThrow(
      /5 columns where 6/,
    );
    await backend.close();
  });
});
