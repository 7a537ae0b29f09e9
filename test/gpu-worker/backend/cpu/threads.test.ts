import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { CpuBackend, openCpuBackend } from '../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { asCpu } from '../../../../gpu-worker/backend/cpu/handles.ts';
import { failedAt, jobAt, wordAt } from '../../../../gpu-worker/backend/cpu/kernels/op-codes.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  f32Numerics,
  fp8Numerics,
  openTested,
  randomFloats,
  randomWeight,
} from '../../../support/gpu/backends.ts';

const run = promisify(execFile);
const backendUrl = new URL('../../../../gpu-worker/backend/cpu/cpu-backend.ts', import.meta.url);

/** An op number that no kernel has: every thread that takes such a task traps. */
const noOp = 99;

describe('threads', () => {
  test('of any number compute the same bits', async () => {
    const random = seededRandom(61);
    const source = randomWeight(random, { outputs: 520, inputs: 300, dtype: 'F8_E4M3' });
    const values = randomFloats(random, 130 * 300);
    const results: Float32Array[] = [];
    for (const threads of [1, 2, 3, 5]) {
      // oxlint-disable-next-line no-await-in-loop
      const { backend, filled, poison } = await openTested(fp8Numerics, { threads });
      const matrix = backend.weights.matrix(source);
      const x = filled(values, 300);
      const out = backend.memory.tensor(130, 520);
      for (let repeat = 0; repeat < 20; repeat++) backend.gemm.linear(poison(out), x, matrix, 130);
      results.push(backend.memory.read(out, 130));
      // oxlint-disable-next-line no-await-in-loop
      await backend.close();
    }
    for (const result of results) expect(result).toEqual(results[0]);
  });

  test('run many small jobs one after the other without losing one, asleep in between or not', async () => {
    const { backend, filled } = await openTested(f32Numerics, { threads: 3 });
    const random = seededRandom(62);
    const matrix = backend.weights.matrix(
      randomWeight(random, { outputs: 512, inputs: 256, dtype: 'F32' }),
    );
    const x = filled(randomFloats(random, 256), 256);
    const out = backend.memory.tensor(1, 512);
    backend.gemm.linear(out, x, matrix, 1);
    const expected = backend.memory.read(out, 1);
    for (let i = 0; i < 3000; i++) {
      backend.gemm.linear(out, x, matrix, 1);
      // oxlint-disable-next-line no-await-in-loop
      if (i % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(backend.memory.read(out, 1)).toEqual(expected);
    await backend.close();
  });

  test('of which a helper dies surface that as the error of the next op', async () => {
    const { backend } = await openTested(f32Numerics, { threads: 2 });
    const { arena, pool } = asCpu(CpuBackend, backend).context;
    // A job of one task, published without the caller: the helper takes it, and traps.
    arena.u32.set([noOp, 1], jobAt / 4);
    Atomics.store(arena.i32, wordAt / 4, 1);
    Atomics.notify(arena.i32, wordAt / 4);
    const died = () => Atomics.load(arena.i32, failedAt / 4) === 1;
    for (let i = 0; i < 1000 && !(died() && pool.failed); i++) {
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(died()).toBe(true);
    const x = backend.memory.tensor(1, 4);
    expect(() => backend.rows.add(x, x, 1)).toThrow(/the cpu backend failed: .*unreachable/);
    await backend.close();
  });

  test('that trap end the backend: every later op fails', async () => {
    const { backend } = await openTested(f32Numerics, { threads: 2 });
    const { pool } = asCpu(CpuBackend, backend).context;
    const job = { op: noOp, tasks: 64, work: 1e9, arguments: [] };
    expect(() => pool.run(job)).toThrow(/unreachable|helper thread died/);
    const x = backend.memory.tensor(1, 4);
    expect(() => backend.rows.add(x, x, 1)).toThrow(/the cpu backend failed/);
    await backend.close();
  });

  test('end when the backend closes, however often it is closed, and no op runs afterwards', async () => {
    const { backend } = await openTested(f32Numerics, { threads: 4 });
    const x = backend.memory.tensor(1, 4);
    await Promise.all([backend.close(), backend.close()]);
    await backend.close();
    expect(() => backend.rows.add(x, x, 1)).toThrow(/closed/);
  });

  test('do not keep a process alive that does not close the backend', async () => {
    const numerics = JSON.stringify(f32Numerics);
    const script = `
      const { openCpuBackend } = await import(${JSON.stringify(fileURLToPath(backendUrl))});
      await openCpuBackend({ numerics: ${numerics}, rowsMax: 4, threads: 3 });
      console.log('open');`;
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], {
      timeout: 60_000,
    });
    expect(stdout.trim()).toBe('open');
  });
});

describe('memory', () => {
  test('that does not suffice is an error that says for what and how much', async () => {
    const memoryBytesMax = 32 * 2 ** 20;
    const { backend } = await openTested(f32Numerics, { threads: 2, memoryBytesMax });
    const source = randomWeight(seededRandom(1), { outputs: 8, inputs: 8, dtype: 'F32' });
    const shape = { layers: 4, blocks: 10_000, latentDim: 64, ropeDim: 16, indexDim: 32 };
    expect(() => backend.caches.make(shape)).toThrow(
      /the cpu backend's memory does not hold the caches of layer 0 \(10000 blocks\): it needs \d+ of 33554432 bytes/,
    );
    // The memory that was there before still works.
    expect(backend.weights.matrix(source).outputs).toBe(8);
    await backend.close();
  });

  test('is accounted by purpose, and ops take none', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const { weightBytes } = backend.memory.use();
    const matrix = backend.weights.matrix(
      randomWeight(seededRandom(2), { outputs: 512, inputs: 512, dtype: 'BF16' }),
    );
    expect(backend.memory.use().weightBytes - weightBytes).toBeGreaterThanOrEqual(512 * 512 * 2);
    const x = filled(randomFloats(seededRandom(3), 160 * 512), 512);
    const out = backend.memory.tensor(160, 512);
    const before = backend.memory.use();
    for (let i = 0; i < 5; i++) backend.gemm.linear(out, x, matrix, 160);
    expect(backend.memory.use()).toEqual(before);
    const { limitBytes, activationBytes, cacheBytes } = before;
    expect(before.weightBytes + activationBytes + cacheBytes).toBeLessThan(limitBytes);
    await backend.close();
  });

  test.each([{ rowsMax: 0 }, { rowsMax: 1.5 }, { threads: 0 }, { memoryBytesMax: 1000 }])(
    'and rows and threads that make no sense are refused: %o',
    async (options) => {
      const opened = openCpuBackend({ numerics: f32Numerics, rowsMax: 4, ...options });
      await expect(opened).rejects.toThrow(/must be/);
    },
  );
});
