/**
 * Collectives between threads over shared memory. Every rank has a slot that all can read: a rank
 * writes its own, says that it has arrived, waits for the others and reads theirs. Two slots are
 * used in turn: who writes a slot again has seen everybody arrive at the round after it, and so
 * knows that everybody has read it.
 *
 * Sums go over the ranks in order of their numbers, so that every rank has the same bits in every
 * run, whoever arrives first.
 */
import { strict as assert } from 'node:assert';
import { at, missing } from '../../at.ts';

/** The memory of a group of ranks; it survives structured clone. */
export interface RankMemory {
  readonly size: number;
  /** Floats of a slot; longer messages go in several rounds. */
  readonly slotFloats: number;
  /** i32: `abortedAt`, then a cache line for each rank that holds its round. */
  readonly control: SharedArrayBuffer;
  /** i32 [2][ranks][ranks] floats that a rank sends to each in an exchange. */
  readonly counts: SharedArrayBuffer;
  /** f32 [2][ranks][slotFloats] */
  readonly slots: SharedArrayBuffer;
}

/** The collective that a rank waited in was given up, because another rank has failed. */
export class RanksAborted extends Error {}

const abortedAt = 0;
const lineWords = 16;
/** A wake-up that was missed costs at most so long. */
const recheckMs = 50;

const defaultSlotFloats = 65_536;

export function createRankMemory(size: number, slotFloats = defaultSlotFloats): RankMemory {
  assert(Number.isInteger(size) && size > 0, 'a group has ranks');
  return {
    size,
    slotFloats,
    control: new SharedArrayBuffer((size + 1) * lineWords * 4),
    counts: new SharedArrayBuffer(2 * size * size * 4),
    slots: new SharedArrayBuffer(2 * size * slotFloats * 4),
  };
}

/** Makes every rank that waits, or comes to wait, throw `RanksAborted`. */
export function abortRanks({ control, size }: RankMemory): void {
  const words = new Int32Array(control);
  Atomics.store(words, abortedAt, 1);
  for (let rank = 0; rank < size; rank++) Atomics.notify(words, wordOf(rank));
}

export interface RankState {
  /** Rounds of collectives and pieces of work that the rank has come to: it grows, or hangs. */
  readonly progress: number;
  /** True while it waits for the others. */
  readonly waits: boolean;
}

export function statesOf({ control, size }: RankMemory): RankState[] {
  const words = new Int32Array(control);
  return Array.from({ length: size }, (_, rank) => ({
    progress: Atomics.load(words, wordOf(rank)) + Atomics.load(words, worksOf(rank)),
    waits: Atomics.load(words, waitsOf(rank)) === 1,
  }));
}

export class SharedRanks {
  readonly rank: number;
  readonly size: number;
  readonly #memory: RankMemory;
  readonly #words: Int32Array;
  readonly #counts: Int32Array;
  readonly #slots: Float32Array;
  #round = 0;

  constructor(memory: RankMemory, rank: number) {
    assert(rank >= 0 && rank < memory.size, `a group of ${memory.size} has no rank ${rank}`);
    this.rank = rank;
    this.size = memory.size;
    this.#memory = memory;
    this.#words = new Int32Array(memory.control);
    this.#counts = new Int32Array(memory.counts);
    this.#slots = new Float32Array(memory.slots);
  }

  /**
   * x = the sum of all ranks' x, in float32 and in order of rank. Each rank sums a part, which the
   * others then take from it.
   */
  allReduce(x: Float32Array): void {
    if (this.size === 1) return;
    const share = Math.ceil(x.length / this.size);
    const sums = new Float32Array(share);
    this.reduceScatter(sums, x);
    const gathered = new Float32Array(share * this.size);
    this.allGather(gathered, sums);
    x.set(gathered.subarray(0, x.length));
  }

  /** out [size * x.length] = the x of rank 0, then of rank 1, and so on. */
  allGather(out: Float32Array, x: Float32Array): void {
    assert(out.length === x.length * this.size, 'a gathered array holds the part of every rank');
    const { slotFloats } = this.#memory;
    for (let start = 0; start < x.length; start += slotFloats) {
      const piece = x.subarray(start, start + slotFloats);
      this.#slot(this.rank).set(piece);
      this.#meet();
      for (let rank = 0; rank < this.size; rank++) {
        const from = this.#slot(rank).subarray(0, piece.length);
        out.set(from, rank * x.length + start);
      }
      this.#round++;
    }
  }

  /**
   * out = this rank's part of the sum of all ranks' x: elements [rank * out.length, ...), those
   * behind the end of x being 0.
   */
  reduceScatter(out: Float32Array, x: Float32Array): void {
    const share = out.length;
    assert(share * this.size >= x.length, 'the parts of all ranks hold the whole sum');
    out.fill(0);
    const pieceMax = Math.floor(this.#memory.slotFloats / this.size);
    for (let start = 0; start < share; start += pieceMax) {
      const length = Math.min(pieceMax, share - start);
      const own = this.#slot(this.rank);
      for (let rank = 0; rank < this.size; rank++) {
        const from = rank * share + start;
        own.set(x.subarray(from, Math.min(from + length, x.length)), rank * length);
      }
      this.#meet();
      const held = Math.max(0, Math.min(length, x.length - this.rank * share - start));
      for (let rank = 0; rank < this.size; rank++) {
        const mine = this.#slot(rank).subarray(this.rank * length, this.rank * length + held);
        addTo(out, start, mine);
      }
      this.#round++;
    }
  }

  /** Sends parts[r] to rank r; returns what each rank sent to this one. Lengths may differ. */
  exchange(parts: readonly Float32Array[]): Float32Array[] {
    assert(parts.length === this.size, 'there is a part for every rank');
    const { slotFloats } = this.#memory;
    const sent = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
    let end = 0;
    for (const part of parts) {
      sent.set(part, end);
      end += part.length;
    }
    let received: Incoming[] = [];
    for (let start = 0, rounds = 1; start < rounds * slotFloats; start += slotFloats) {
      const lengths = parts.map(({ length }) => length);
      this.#counts.set(lengths, this.#countsAt(this.rank));
      this.#slot(this.rank).set(sent.subarray(start, start + slotFloats));
      this.#meet();
      if (start === 0) {
        received = this.#announced();
        const longest = Math.max(...received.map(({ total }) => total));
        rounds = Math.max(1, Math.ceil(longest / slotFloats));
      }
      for (const [rank, { part, begin }] of received.entries()) {
        takePiece(part, begin, { piece: this.#slot(rank), start });
      }
      this.#round++;
    }
    return received.map(({ part }) => part);
  }

  /** The parts that are for this rank, still empty, by the lengths that the ranks have told. */
  #announced(): Incoming[] {
    return Array.from({ length: this.size }, (_, rank) => {
      const place = this.#countsAt(rank);
      const lengths = this.#counts.subarray(place, place + this.size);
      const before = lengths.subarray(0, this.rank).reduce((sum, length) => sum + length, 0);
      const total = lengths.reduce((sum, length) => sum + length, 0);
      return { part: new Float32Array(at(lengths, this.rank)), begin: before, total };
    });
  }

  #countsAt(rank: number): number {
    return ((this.#round & 1) * this.size + rank) * this.size;
  }

  #slot(rank: number): Float32Array {
    const { slotFloats } = this.#memory;
    const start = ((this.#round & 1) * this.size + rank) * slotFloats;
    return this.#slots.subarray(start, start + slotFloats);
  }

  /** Says that this rank is at work. */
  work(): void {
    Atomics.add(this.#words, worksOf(this.rank), 1);
  }

  /** Arrives at the end of this round's writes, and waits until every rank has. */
  #meet(): void {
    const round = (this.#round + 1) | 0;
    Atomics.store(this.#words, wordOf(this.rank), round);
    Atomics.notify(this.#words, wordOf(this.rank));
    Atomics.store(this.#words, waitsOf(this.rank), 1);
    for (let rank = 0; rank < this.size; rank++) {
      for (;;) {
        if (Atomics.load(this.#words, abortedAt) !== 0) {
          throw new RanksAborted('another rank has failed');
        }
        const seen = Atomics.load(this.#words, wordOf(rank));
        // The difference, not the order: rounds wrap around.
        if (((seen - round) | 0) >= 0) break;
        Atomics.wait(this.#words, wordOf(rank), seen, recheckMs);
      }
    }
    Atomics.store(this.#words, waitsOf(this.rank), 0);
  }
}

/** A part on its way: it lies at `begin` of the `total` floats that its sender sends in all. */
interface Incoming {
  readonly part: Float32Array;
  readonly begin: number;
  readonly total: number;
}

/** Copies what `piece`, which stands at `start` of all that was sent, holds of the part. */
function takePiece(
  part: Float32Array,
  begin: number,
  { piece, start }: { piece: Float32Array; start: number },
): void {
  const from = Math.max(begin, start);
  const to = Math.min(begin + part.length, start + piece.length);
  if (from < to) part.set(piece.subarray(from - start, to - start), from - begin);
}

function addTo(sums: Float32Array, start: number, added: Float32Array): void {
  for (let i = 0; i < added.length; i++) {
    sums[start + i] = (sums[start + i] ?? missing()) + (added[i] ?? missing());
  }
}

function wordOf(rank: number): number {
  return (rank + 1) * lineWords;
}

function waitsOf(rank: number): number {
  return wordOf(rank) + 1;
}

function worksOf(rank: number): number {
  return wordOf(rank) + 2;
}
