/** Loading a checkpoint over ranks: what is read, what is told, and how a failure ends it. */
import { statSync } from 'node:fs';
import type { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { readGolden } from '../../support/worker/golden.ts';
import { openRanksForTest } from '../../support/worker/ranks-harness.ts';

const golden = readGolden('dsv32-f32');
const faultyEntry = new URL('../../support/worker/faulty-loading-rank.ts', import.meta.url);

/** Counts the bytes of the checkpoint's tensors that are read. */
const read = vi.hoisted(() => ({ ranges: [] as { start: number; end: number }[] }));
vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<{ open: typeof open }>();
  return {
    ...original,
    async open(...call: Parameters<typeof open>) {
      const handle = await original.open(...call);
      if (!String(call[0]).endsWith('.safetensors')) return handle;
      const readHere = handle.read.bind(handle);
      handle.read = (async (into: Uint8Array, offset: number, length: number, start: number) => {
        read.ranges.push({ start, end: start + length });
        return readHere(into, offset, length, start);
      }) as typeof handle.read;
      return handle;
    },
  };
});

test('four ranks read each byte of the weights once, and progress tells all of it', async () => {
  read.ranges.length = 0;
  const told: [number, number][] = [];
  const { loaded, close } = await openRanksForTest(golden.directory, {
    tensorParallel: 2,
    dataParallel: 2,
    onProgress: (done, total) => told.push([done, total]),
  });
  await close();
  const { size } = statSync(join(golden.directory, 'model.safetensors'));
  const total = read.ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  expect(total).toBe(size);
  const [done, all] = at(told, told.length - 1);
  expect(done).toBe(all);
  expect(all).toBeLessThanOrEqual(size);
  expect(loaded.memories).toHaveLength(4);
});

describe('what ends a load', () => {
  test('a rank that fails, in one line that names it', async () => {
    const opening = openRanksForTest(golden.directory, {
      tensorParallel: 2,
      dataParallel: 2,
      entry: faultyEntry,
    });
    await expect(opening).rejects.toThrow(/^rank 2 of 4 failed: out of memory for a tensor$/);
  });

  const faults: [number, number, string][] = [
    [4, 1, 'num_attention_heads = 6 does not divide by 4'],
    [1, 3, 'n_routed_experts = 8 does not divide by 3'],
    [2, 8, 'n_routed_experts = 8 does not divide by 16'],
  ];
  test.each(faults)('T%i x D%i, which the model cannot lie over', async (t, d, why) => {
    const opening = openRanksForTest(golden.directory, { tensorParallel: t, dataParallel: d });
    await expect(opening).rejects.toThrow(
      new RegExp(`^--tensor-parallel ${t} --data-parallel ${d}: ${why}$`),
    );
  });
});
