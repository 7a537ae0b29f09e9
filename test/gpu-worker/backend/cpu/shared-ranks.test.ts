import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { at } from '../../../../gpu-worker/at.ts';
import {
  abortRanks,
  createRankMemory,
  SharedRanks,
} from '../../../../gpu-worker/backend/cpu/shared-ranks.ts';
import type { RankMemory } from '../../../../gpu-worker/backend/cpu/shared-ranks.ts';
import { sentLength, valuesOf } from '../../../support/worker/collectives-thread.ts';
import type {
  CollectivesResult,
  CollectivesStart,
} from '../../../support/worker/collectives-thread.ts';

const entry = new URL('../../../support/worker/collectives-thread.ts', import.meta.url);
/** More and fewer than a slot, and none that divides by all sizes. */
const lengths = [1, 5, 16, 17, 100, 0, 331];

function start(start_: CollectivesStart): Worker {
  return new Worker(entry, { workerData: start_, execArgv: [] });
}

async function resultOf(thread: Worker): Promise<CollectivesResult> {
  // The thread sends nothing else.
  const [result] = (await once(thread, 'message')) as [CollectivesResult];
  return result;
}

function runAll(size: number, pauseSeed: number): Promise<CollectivesResult[]> {
  const memory = createRankMemory(size, 16);
  const ranks = Array.from({ length: size }, (_, rank) => rank);
  return Promise.all(
    ranks.map((rank) => resultOf(start({ memory, rank, lengths, pauseSeed, failsAt: null }))),
  );
}

/** The sum in order of rank, in float32. */
function sumOf(size: number, length: number): Float32Array {
  const sums = new Float32Array(length);
  for (let rank = 0; rank < size; rank++) {
    const values = valuesOf(rank, length);
    for (let i = 0; i < length; i++) sums[i] = at(sums, i) + at(values, i);
  }
  return sums;
}

describe.each([1, 2, 3, 8])('collectives of %i ranks', (size) => {
  test('sum in order of rank, gather and exchange, in whatever order the ranks arrive', async () => {
    for (const pauseSeed of [1, 2]) {
      const results = await runAll(size, pauseSeed);
      for (const [rank, result] of results.entries()) {
        for (const [call, length] of lengths.entries()) {
          const sum = sumOf(size, length);
          expect(at(result.reduced, call)).toEqual(sum);
          const all = Array.from({ length: size }, (_, from) => [...valuesOf(from, length)]);
          expect([...at(result.gathered, call)]).toEqual(all.flat());
          const share = Math.ceil(length / size);
          const mine = sum.subarray(rank * share, (rank + 1) * share);
          expect(at(result.scattered, call).subarray(0, mine.length)).toEqual(mine);
          const sent = Array.from({ length: size }, (_, from) =>
            valuesOf(from, sentLength(from, rank, length)),
          );
          expect(at(result.exchanged, call)).toEqual(sent);
        }
      }
    }
  });
});

test('a rank that fails leaves the others waiting until they are told, and then they fail', async () => {
  const memory: RankMemory = createRankMemory(3, 16);
  const threads = [0, 1, 2].map((rank) =>
    start({ memory, rank, lengths, pauseSeed: 1, failsAt: rank === 1 ? 3 : null }),
  );
  const errors = threads.map(async (thread) => {
    const [error] = (await once(thread, 'error')) as [Error];
    return error.message;
  });
  expect(await errors[1]).toContain('this rank was to fail');
  abortRanks(memory);
  expect(await Promise.all([errors[0], errors[2]])).toEqual([
    'another rank has failed',
    'another rank has failed',
  ]);
});

test('a rank outside of its group is refused', () => {
  expect(() => new SharedRanks(createRankMemory(2), 2)).toThrow('a group of 2 has no rank 2');
});
