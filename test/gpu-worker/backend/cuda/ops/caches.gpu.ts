/** The bytes of the caches after entries and keys were normed, rotated and stored at once. */
import { CpuBackend } from '../../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuLayerCache } from '../../../../../gpu-worker/backend/cpu/handles.ts';
import { CudaLayerCache, asCuda } from '../../../../../gpu-worker/backend/cuda/handles.ts';
import type { RopeLayout } from '../../../../../gpu-worker/backend/row-ops.ts';
import type { LayerCache } from '../../../../../gpu-worker/backend/shapes.ts';
import { exactTolerance, expectClose, test } from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import { allNumerics, batchOf, randomFloats } from '../../../../support/gpu/backends.ts';
import { openPair, toBf16 } from '../../../../support/gpu/tested.ts';
import type { Pair } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const blocks = 3;
const shapes = [
  { latentDim: 37, ropeDim: 6, indexDim: 10 },
  { latentDim: 136, ropeDim: 8, indexDim: 32 },
  { latentDim: 64, ropeDim: 16, indexDim: 64 },
  { latentDim: 512, ropeDim: 64, indexDim: 128 },
];

/** The bytes of both caches, all blocks of them. */
function bytesOf({ cuda, cpu }: Pair, handles: { cuda: LayerCache; cpu: LayerCache }) {
  const there = asCuda(CudaLayerCache, handles.cuda);
  const here = asCuda(CpuLayerCache, handles.cpu);
  const { device } = cuda.backend.context;
  const { arena } = asCuda(CpuBackend, cpu.backend).context;
  const memory = new Uint8Array(arena.f32.buffer);
  const latentBytes = blocks * 64 * there.entryBytes;
  const keyBytes = blocks * there.pageBytes;
  return {
    latents: {
      actual: device.download(there.latents, latentBytes),
      expected: memory.slice(here.latents, here.latents + latentBytes),
    },
    keys: {
      actual: device.download(there.keys, keyBytes),
      expected: memory.slice(here.keys, here.keys + keyBytes),
    },
  };
}

/** Codes and scales may differ where a norm's sum falls on the other side of a rounding: rarely. */
function expectAlike(
  { actual, expected }: { actual: Uint8Array; expected: Uint8Array },
  inFloats: boolean,
): void {
  if (inFloats) {
    const floats = (bytes: Uint8Array) => new Float32Array(bytes.slice().buffer);
    expectClose(floats(actual), floats(expected), exactTolerance);
    return;
  }
  const different = expected.reduce((sum, byte, i) => sum + (byte === actual[i] ? 0 : 1), 0);
  const written = expected.reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0);
  if (written === 0) throw new Error('nothing was stored');
  if (different > written * 0.01) {
    throw new Error(`${different} bytes differ, of ${written} that are not 0`);
  }
}

for (const { name, numerics } of allNumerics) {
  for (const { latentDim, ropeDim, indexDim } of shapes) {
    const pair = await openPair(numerics);
    const random = seededRandom(seed);
    const round = numerics.activations === 'bf16' ? toBf16 : (values: Float32Array) => values;
    const rows = 40;
    const cos = Float32Array.from({ length: 90 * (ropeDim / 2) }, () => Math.cos(random.uniform()));
    const sin = Float32Array.from({ length: 90 * (ropeDim / 2) }, () => Math.sin(random.uniform()));
    const entries = round(randomFloats(random, rows * (latentDim + ropeDim)));
    const keys = round(randomFloats(random, rows * indexDim));
    const latentWeight = randomFloats(random, latentDim);
    const [keyWeight, keyBias] = [randomFloats(random, indexDim), randomFloats(random, indexDim)];
    const transform = Number.isInteger(Math.log2(indexDim));
    const batch = batchOf([
      { start: 45, rows: 30, blockTable: Int32Array.of(2, 0) },
      { start: 3, rows: 10, blockTable: Int32Array.of(1) },
    ]);
    for (const layout of ['interleaved', 'half'] as const satisfies readonly RopeLayout[]) {
      await test(`${name}: entries of ${latentDim} and ${ropeDim}, keys of ${indexDim}, ${layout}`, () => {
        const store = ({ backend, filled }: Pair['cpu']) => {
          const shape = { layers: 1, blocks, latentDim, ropeDim, indexDim };
          const [cache] = backend.caches.make(shape);
          if (cache === undefined) throw new Error('no cache was made');
          backend.rows.ropeTable({ cos, sin, dim: ropeDim });
          backend.batch.begin(batch);
          const norm = { weight: backend.weights.vector('w', latentWeight), epsilon: 1e-6 };
          backend.caches.storeLatent(cache, filled(entries, latentDim + ropeDim), norm);
          const keyNorm = {
            weight: backend.weights.vector('w', keyWeight),
            bias: backend.weights.vector('b', keyBias),
            epsilon: 1e-6,
          };
          backend.caches.storeIndexKeys(cache, filled(keys, indexDim), keyNorm, {
            layout,
            transform,
          });
          return cache;
        };
        const { device } = pair.cuda.backend.context;
        const cuda = store(pair.cuda);
        const { latents, keys: stored } = bytesOf(pair, { cuda, cpu: store(pair.cpu) });
        // Slots that nothing was written to hold whatever the memory held.
        clearUnwritten(latents, asCuda(CudaLayerCache, cuda).entryBytes, batch.slots);
        expectAlike(latents, numerics.latentCache === 'f32');
        clearUnwrittenKeys(stored, { indexDim, fp8: numerics.indexKeys === 'fp8' }, batch.slots);
        expectAlike(stored, numerics.indexKeys === 'f32');
        device.synchronize();
      });
    }
    await pair.close();
  }
}

interface Both {
  readonly actual: Uint8Array;
  readonly expected: Uint8Array;
}

function clear({ actual, expected }: Both, start: number, count: number): void {
  actual.fill(0, start, start + count);
  expected.fill(0, start, start + count);
}

function clearUnwritten(both: Both, entryBytes: number, slots: Int32Array): void {
  for (let slot = 0; slot < blocks * 64; slot++) {
    if (!slots.includes(slot)) clear(both, slot * entryBytes, entryBytes);
  }
}

function clearUnwrittenKeys(
  both: Both,
  { indexDim, fp8 }: { indexDim: number; fp8: boolean },
  slots: Int32Array,
): void {
  const keyBytes = fp8 ? indexDim : indexDim * 4;
  const pageBytes = 64 * (fp8 ? indexDim + 4 : indexDim * 4);
  for (let slot = 0; slot < blocks * 64; slot++) {
    if (slots.includes(slot)) continue;
    const [page, place] = [Math.floor(slot / 64) * pageBytes, slot % 64];
    clear(both, page + place * keyBytes, keyBytes);
    if (fp8) clear(both, page + 64 * indexDim + place * 4, 4);
  }
}
