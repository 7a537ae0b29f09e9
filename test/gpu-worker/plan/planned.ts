/** Plans of a config.json, without a checkpoint beside it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { planCudaBackend } from '../../../gpu-worker/backend/cuda/cuda-backend.ts';
import { chooseNumerics } from '../../../gpu-worker/model/mla-moe/numerics.ts';
import type { NumericsName } from '../../../gpu-worker/model/mla-moe/numerics.ts';
import { readShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import type { CheckpointShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import { planMachine } from '../../../gpu-worker/plan/plan.ts';
import type { MachinePlan } from '../../../gpu-worker/plan/plan.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

export interface Machine {
  readonly gpus: number;
  readonly gpuBytes?: number;
  readonly numerics?: NumericsName;
}

export async function shapesOf(config: object): Promise<CheckpointShapes> {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  return readShapes(await openDirectory(directory), { readsHeaders: true });
}

export function planOn(shapes: CheckpointShapes, machine: Machine): MachinePlan {
  const { gpus, gpuBytes = 141e9, numerics: name = 'fp8' } = machine;
  const numerics = chooseNumerics(name, shapes.config);
  const rowsMax = 512;
  return planMachine(shapes, {
    gpus,
    numerics,
    hbmBytesPerSecond: 4e12,
    operationsPerSecond: 2e15,
    limits: { rowsMax, logitRowsMax: 64 },
    openBackend: () => planCudaBackend({ numerics, rowsMax, freeBytes: gpuBytes }),
  });
}
