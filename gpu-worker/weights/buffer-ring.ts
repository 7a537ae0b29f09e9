/**
 * Buffers that bytes arrive in, within a bound on their sum. What is given back is used again:
 * fresh memory would stay with the process until the garbage collector finds that it can go.
 */

import type { HostMemory } from '../backend/memory.ts';

const ownMemory: HostMemory = {
  allocate: (bytes) => new Uint8Array(bytes),
  // Detaching frees the memory now, not at some later collection.
  free: ({ buffer }) => void buffer.transfer(0),
};

export interface BufferRingOptions {
  readonly bytesMax: number;
  /** Sizes are rounded up to a step, so that buffers of nearly the same size serve one another. */
  readonly stepBytes: number;
  /** The source of the buffers; the process's own memory without. */
  readonly memory?: HostMemory | null;
}

export class BufferRing {
  readonly #memory: HostMemory;
  readonly #bytesMax: number;
  readonly #stepBytes: number;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  readonly #used = new Set<Uint8Array<ArrayBuffer>>();
  #bytes = 0;

  constructor({ bytesMax, stepBytes, memory }: BufferRingOptions) {
    this.#memory = memory ?? ownMemory;
    this.#bytesMax = bytesMax;
    this.#stepBytes = stepBytes;
  }

  /**
   * Takes a buffer of at least `bytes`, or null until another is given back. A size above the bound
   * is granted when nothing else is in use: one tensor has to fit, however large.
   */
  take(bytes: number): Uint8Array<ArrayBuffer> | null {
    const size = Math.max(1, Math.ceil(bytes / this.#stepBytes)) * this.#stepBytes;
    const fitting = this.#free
      .filter(({ length }) => length >= size && length <= 2 * size)
      .toSorted((a, b) => a.length - b.length)[0];
    if (fitting !== undefined) {
      this.#free.splice(this.#free.indexOf(fitting), 1);
      this.#used.add(fitting);
      return fitting;
    }
    while (this.#bytes + size > this.#bytesMax && this.#free.length > 0) this.#drop();
    if (this.#bytes + size > this.#bytesMax && this.#used.size > 0) return null;
    const buffer = this.#memory.allocate(size);
    this.#bytes += size;
    this.#used.add(buffer);
    return buffer;
  }

  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#used.delete(buffer)) this.#free.push(buffer);
  }

  /** Frees the memory of all buffers, those in use included. */
  clear(): void {
    for (const buffer of this.#used) this.give(buffer);
    while (this.#free.length > 0) this.#drop();
  }

  #drop(): void {
    const buffer = this.#free.shift();
    if (buffer === undefined) return;
    this.#bytes -= buffer.length;
    this.#memory.free(buffer);
  }
}
