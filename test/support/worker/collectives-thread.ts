/**
 * A rank that calls every collective in turn, coming late to some, and tells what it got of each.
 */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import { SharedRanks } from '../../../gpu-worker/backend/cpu/shared-ranks.ts';
import type { RankMemory } from '../../../gpu-worker/backend/cpu/shared-ranks.ts';
import { seededRandom } from '../random.ts';

export interface CollectivesStart {
  readonly memory: RankMemory;
  readonly rank: number;
  /** Lengths of the messages, one round of all collectives for each. */
  readonly lengths: readonly number[];
  /** Seed of the pauses before collectives; the values do not depend on it. */
  readonly pauseSeed: number;
  /** Throws before this call instead of taking part in it. */
  readonly failsAt: number | null;
}

export interface CollectivesResult {
  readonly reduced: Float32Array[];
  readonly gathered: Float32Array[];
  readonly scattered: Float32Array[];
  readonly exchanged: Float32Array[][];
}

/** The values that a rank brings to the collectives of one length. */
export function valuesOf(rank: number, length: number): Float32Array {
  const random = seededRandom(1000 * length + rank);
  return Float32Array.from({ length }, () => random.uniform() * 10 ** random.integer(-6, 6));
}

/** Floats that one rank sends to another in an exchange: none for some. */
export function sentLength(from: number, to: number, length: number): number {
  return (from * 7 + to * 3) % 4 === 0 ? 0 : (length * (from + 1)) % (to + 5);
}

if (parentPort !== null) {
  // The test that starts this thread passes exactly this type.
  const { memory, rank, lengths, pauseSeed, failsAt } = workerData as CollectivesStart;
  const ranks = new SharedRanks(memory, rank);
  const random = seededRandom(pauseSeed * 100 + rank);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const result: CollectivesResult = { reduced: [], gathered: [], scattered: [], exchanged: [] };
  for (const [call, length] of lengths.entries()) {
    assert(call !== failsAt, 'this rank was to fail');
    if (random.integer(0, 3) === 0) Atomics.wait(pause, 0, 0, random.integer(1, 5));
    const values = valuesOf(rank, length);
    const reduced = values.slice();
    ranks.allReduce(reduced);
    result.reduced.push(reduced);
    const gathered = new Float32Array(length * memory.size);
    ranks.allGather(gathered, values);
    result.gathered.push(gathered);
    const scattered = new Float32Array(Math.ceil(length / memory.size));
    ranks.reduceScatter(scattered, values);
    result.scattered.push(scattered);
    const parts = Array.from({ length: memory.size }, (_, to) =>
      valuesOf(rank, sentLength(rank, to, length)),
    );
    result.exchanged.push(ranks.exchange(parts));
  }
  parentPort.postMessage(result, []);
}
