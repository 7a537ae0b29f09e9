/** The collectives of the graph between ranks that are threads of one process. */
import { at, missing } from '../../at.ts';
import type { RankOps, RankPlace } from '../ranks.ts';
import type { Tensor } from '../shapes.ts';
import type { Arena } from './arena.ts';
import { roundBf16 } from './codecs.ts';
import { checkedTensor } from './handles.ts';
import { abortRanks, createRankMemory, SharedRanks, statesOf } from './shared-ranks.ts';
import type { RankMemory, RankState } from './shared-ranks.ts';

/** The memory of the ranks that share a group's heads, and of all ranks. */
export interface CpuRankMemory {
  readonly heads: RankMemory;
  readonly experts: RankMemory;
  /** The rank among all; those of a group are neighbours. */
  readonly rank: number;
}

/** The memory of T x D ranks, and what whoever leads them sees of their work. */
export function createCpuRanks(layout: { tensorParallel: number; dataParallel: number }) {
  const { tensorParallel, dataParallel } = layout;
  const experts = createRankMemory(tensorParallel * dataParallel);
  const groups = Array.from({ length: dataParallel }, () => createRankMemory(tensorParallel));
  return {
    memoryOf(rank: number): CpuRankMemory {
      return { heads: at(groups, Math.floor(rank / tensorParallel)), experts, rank };
    },
    /** Makes every rank that waits for others give up. */
    abort(): void {
      for (const memory of [experts, ...groups]) abortRanks(memory);
    },
    /** Tells a rank that works, or waits for others, from one that hangs. */
    progress(): RankState[] {
      const amongHeads = groups.flatMap(statesOf);
      return statesOf(experts).map((state, rank) => {
        const other = at(amongHeads, rank);
        const progress = state.progress + other.progress;
        return { progress, waits: state.waits || other.waits };
      });
    },
  };
}

export class CpuRanks implements RankOps {
  readonly heads: RankPlace;
  readonly experts: SharedRanks;
  readonly #arena: Arena;
  readonly #round: 0 | 1;
  readonly #shared: SharedRanks;

  constructor(context: { arena: Arena; round: 0 | 1 }, memory: CpuRankMemory) {
    this.#arena = context.arena;
    this.#round = context.round;
    this.#shared = new SharedRanks(memory.heads, memory.rank % memory.heads.size);
    this.heads = this.#shared;
    this.experts = new SharedRanks(memory.experts, memory.rank);
  }

  allReduce(x: Tensor, rows: number): void {
    const place = checkedTensor(x, rows, x.columns);
    const end = place.at + rows * place.stride;
    const values = this.#arena.f32.subarray(place.at / 4, end / 4);
    this.#shared.allReduce(values);
    if (this.#round === 0 || this.#shared.size === 1) return;
    for (let i = 0; i < values.length; i++) values[i] = roundBf16(values[i] ?? missing());
  }

  allGather(out: Tensor, x: Tensor, rows: number): void {
    const { size } = this.#shared;
    const from = checkedTensor(x, rows, x.columns);
    const into = checkedTensor(out, rows, x.columns * size);
    const { f32 } = this.#arena;
    const own = new Float32Array(rows * x.columns);
    for (let r = 0; r < rows; r++) {
      const start = (from.at + r * from.stride) / 4;
      own.set(f32.subarray(start, start + x.columns), r * x.columns);
    }
    const gathered = new Float32Array(own.length * size);
    this.#shared.allGather(gathered, own);
    for (let rank = 0; rank < size; rank++) {
      for (let r = 0; r < rows; r++) {
        const start = (rank * rows + r) * x.columns;
        const row = gathered.subarray(start, start + x.columns);
        f32.set(row, (into.at + r * into.stride) / 4 + rank * x.columns);
      }
    }
  }
}
