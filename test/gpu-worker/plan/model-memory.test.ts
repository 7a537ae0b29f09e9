/** Compares the plan of a model's memory with what the CUDA backend asks of the driver. */
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openCudaBackend } from '../../../gpu-worker/backend/cuda/cuda-backend.ts';
import { loadModel } from '../../../gpu-worker/open-model.ts';
import type { PlannedModel } from '../../../gpu-worker/open-model.ts';
import { affordableBlocks } from '../../../gpu-worker/engine/memory-plan.ts';
import { readShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { planOn } from './planned.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { installStubDriver } from '../../support/gpu/stub-driver.ts';
import { readGolden } from '../../support/worker/golden.ts';

process.env['SIFT_CUBIN_CACHE'] = temporaryDirectory();
const freeBytes = 64 * 2 ** 30;
const driver = installStubDriver({ freeBytes });
const tiny = fileURLToPath(new URL('../../../gpu-worker/models/tiny/', import.meta.url));

describe('a plan has every byte that the CUDA backend then asks for', () => {
  const checkpoints = [
    ['tiny', 'f32', tiny],
    ['tiny', 'fp8', tiny],
    ['the f32 golden', 'f32', readGolden('dsv32-f32').directory],
    ["GLM's golden", 'f32', readGolden('glm-dsa-f32').directory],
    ['the fp8 golden', 'fp8', readGolden('dsv32-fp8').directory],
    ['the fp8 golden', 'f32', readGolden('dsv32-fp8').directory],
    ['the GLM golden', 'f32', readGolden('glm-dsa-f32').directory],
    ['the GLM golden', 'fp8', readGolden('glm-dsa-f32').directory],
  ] as const;

  test.each(checkpoints)('of %s in %s', async (_name, numerics, location) => {
    const planned: PlannedModel[] = [];
    const allocated: number[] = [];
    const copied: number[] = [];
    const first = driver.allocations.length;
    const loaded = await loadModel({
      location,
      compute: { numerics, attention: 'sparse' },
      limits: { rowsMax: 512, logitRowsMax: 64 },
      openBackend: (chosen, { rowsMax }) => openCudaBackend({ numerics: chosen, rowsMax }),
      beforeWeights(plan) {
        planned.push(plan);
        allocated.push(driver.allocations.length);
        copied.push(driver.copiedBytes);
      },
    });
    const { memory, blockBytes, backend } = loaded;
    expect(planned).toHaveLength(1);
    expect(planned[0]).toMatchObject({ memory, blockBytes });
    expect(memory.weightBytes).toBeGreaterThan(0);
    // Nothing of the model was taken or sent before the plan was there.
    expect(driver.copiedBytes - (copied[0] ?? NaN)).toBeGreaterThan(0);
    const taken = driver.allocations.slice(first).reduce((sum, bytes) => sum + bytes, 0);
    expect(memory.weightBytes + memory.activationBytes).toBe(taken);
    loaded.withCache(40);
    const { cacheBytes } = backend.memory.use();
    expect(cacheBytes).toBeGreaterThanOrEqual(40 * blockBytes);
    await backend.close();
  });

  test.each(checkpoints)('as a plan of one GPU, of %s in %s', async (_name, numerics, location) => {
    const compute = { numerics, attention: 'sparse' } as const;
    const limits = { rowsMax: 512, logitRowsMax: 64 };
    const { memory, blockBytes, backend } = await loadModel({
      location,
      compute,
      limits,
      openBackend: (chosen, { rowsMax }) => openCudaBackend({ numerics: chosen, rowsMax }),
    });
    await backend.close();
    const shapes = await readShapes(await openDirectory(location), { readsHeaders: true });
    const { layouts } = planOn(shapes, { gpus: 1, gpuBytes: freeBytes, numerics });
    expect(layouts).toMatchObject([
      {
        memory: {
          weights: memory.weightBytes,
          arena: memory.activationBytes,
          limit: memory.limitBytes,
          reserved: memory.reservedBytes,
        },
        tokens: { perGpu: affordableBlocks(memory, blockBytes) * 64 },
      },
    ]);
  });
});
