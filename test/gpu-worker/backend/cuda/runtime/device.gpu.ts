/**
 * The device itself: faults and their names, memory that is taken once, steps that run as one
 * graph.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { strict as assert } from 'node:assert';
import {
  CudaBackend,
  openCudaBackend,
} from '../../../../../gpu-worker/backend/cuda/cuda-backend.ts';
import { AllocationAfterStart } from '../../../../../gpu-worker/backend/cuda/runtime/device-memory.ts';
import { asCuda } from '../../../../../gpu-worker/backend/cuda/handles.ts';
import { openModel } from '../../../../../gpu-worker/open-model.ts';
import type { PlannedModel } from '../../../../../gpu-worker/open-model.ts';
import { test } from '../../../../gpu/check.ts';
import { observeFault } from '../../../../support/edge/faulty-worker.ts';
import { f32Numerics } from '../../../../support/gpu/backends.ts';

const tiny = fileURLToPath(new URL('../../../../../gpu-worker/models/tiny/', import.meta.url));
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, unit: 0 };

if (process.argv[2] === 'fault') {
  // A process of its own: what comes after a fault on this device fails too.
  const { context } = asCuda(
    CudaBackend,
    await openCudaBackend({ numerics: f32Numerics, rowsMax: 1 }),
  );
  const { device } = context;
  const kernel = device.kernel('random', 'random_values');
  try {
    device.launch(
      kernel,
      { grid: [1, 1, 1], threads: 256 },
      {
        out: 16,
        count: 256,
        seed: 1,
        scale: 1,
        dtype: 0,
      },
    );
    device.synchronize();
  } catch (error) {
    console.log(error instanceof Error ? error.message : error);
  }
  device.close();
  process.exit(0);
}

function messageOfFault(env: Record<string, string>): string {
  const self = fileURLToPath(import.meta.url);
  const child = spawnSync(process.execPath, [self, 'fault'], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  return child.stdout.trim();
}

await test('a fault of a kernel names the call and the code, and how to learn the kernel', () => {
  assert.match(
    messageOfFault({}),
    /^cuStreamSynchronize failed with 7\d\d \(CUDA_ERROR_\w+\) for a step's kernels; with SIFT_CUDA_SYNC=1/,
  );
});

await test('with SIFT_CUDA_SYNC=1 it names the kernel', () => {
  assert.match(
    messageOfFault({ SIFT_CUDA_SYNC: '1' }),
    /^cuStreamSynchronize failed with 7\d\d \(CUDA_ERROR_\w+\) for kernel random_values$/,
  );
});

await test('a worker whose GPU faults ends its answers, says why, and ends', async () => {
  const { events, health, nextStatus, usage, exitCode, states } = await observeFault({
    preload: './test/support/gpu/faulty-gpu.ts',
    flags: ['--backend', 'cuda'],
    data: mkdtempSync(join(tmpdir(), 'sift-fault-')),
  });
  const delivered = events.slice(0, -1) as { usage: { completion_tokens: number } }[];
  assert.equal(delivered.at(-1)?.usage.completion_tokens, 5);
  assert.match(JSON.stringify(events.at(-1)), /failed with 7\d\d .*internal_error/);
  assert.deepEqual([health.status, nextStatus, exitCode], [503, 503, 70]);
  assert.match(JSON.stringify(health.body), /"status":"failed","reason":"the engine failed: cu/);
  assert.match(JSON.stringify(usage), /"status":"failed".*"completion_tokens":5/);
  assert.deepEqual([states[0], states.at(-1)], ['ready', 'failed']);
});

for (const numerics of ['f32', 'fp8'] as const) {
  let planned: PlannedModel | null = null;
  const { model, backend, memory, blockBytes } = await openModel({
    location: tiny,
    compute: { numerics, attention: 'sparse' },
    limits: { rowsMax: 64, logitRowsMax: 8 },
    openBackend: (chosen) => openCudaBackend({ numerics: chosen, rowsMax: 64, absorb: 'always' }),
    beforeWeights: (plan) => (planned = plan),
    blocks: 32,
  });
  const { device } = asCuda(CudaBackend, backend).context;
  const table = Int32Array.from({ length: 32 }, (_, i) => i);
  const decode = (position: number) => {
    model.forward({
      tokens: Int32Array.of((position * 7919) % 4093),
      positions: Int32Array.of(position),
      slots: Int32Array.of(position),
      sequences: Int32Array.of(0),
      blockTables: [table.subarray(0, Math.floor(position / 64) + 1)],
    });
    return model.sample(Int32Array.of(0), [greedy]);
  };

  await test(`${numerics}: the plan before the load has every byte that the load took`, () => {
    assert.deepEqual(
      { ...planned, config: null, backend: null },
      {
        memory,
        blockBytes,
        config: null,
        backend: null,
      },
    );
  });

  await test(`${numerics}: after the start nothing is allocated`, () => {
    assert.throws(() => backend.memory.tensor(1, 1), AllocationAfterStart);
  });

  await test(`${numerics}: decode steps run as one graph, and say what steps without graphs say`, async () => {
    const first = Array.from({ length: 1500 }, (_, position) => decode(position));
    const before = { ...device.queue.counts };
    const again = Array.from({ length: 1500 }, (_, position) => decode(position));
    assert.deepEqual(again, first);
    const { alone, inGraphs } = device.queue.counts;
    // Beside the graph: the row, its product with the head, and the draw.
    assert.ok(alone - before.alone <= 1500 * 5, `${alone - before.alone} launches alone`);
    assert.ok(inGraphs - before.inGraphs >= 1500 * 50, `${inGraphs - before.inGraphs} in graphs`);

    const plain = await openModel({
      location: tiny,
      compute: { numerics, attention: 'sparse' },
      limits: { rowsMax: 64, logitRowsMax: 8 },
      openBackend: (chosen) =>
        openCudaBackend({ numerics: chosen, rowsMax: 64, absorb: 'always', graphs: false }),
      blocks: 32,
    });
    const alike = plain.model;
    const tokens = Array.from({ length: 400 }, (_, position) => {
      alike.forward({
        tokens: Int32Array.of((position * 7919) % 4093),
        positions: Int32Array.of(position),
        slots: Int32Array.of(position),
        sequences: Int32Array.of(0),
        blockTables: [table.subarray(0, Math.floor(position / 64) + 1)],
      });
      return alike.sample(Int32Array.of(0), [greedy]);
    });
    assert.deepEqual(tokens, first.slice(0, 400));
    await plain.backend.close();
  });
  await backend.close();
}
