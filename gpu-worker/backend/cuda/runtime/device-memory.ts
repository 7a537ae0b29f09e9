/**
 * The use of one GPU's memory: slabs of the driver's memory, cut for weights, activations and
 * caches. It asks for memory through a function, so that the same bytes are counted where there is
 * no GPU (planned-device.ts).
 */
import type { MemoryUse } from '../../memory.ts';

export type Purpose = 'weight' | 'activation' | 'cache';

/**
 * Allocations below a quarter of a slab share slabs: a 128th of the memory, within these bounds, so
 * that what is lost at the ends of slabs stays near a percent even with weights of 15 MB.
 */
export const slabBytesMin = 64 * 2 ** 20;
const slabBytesMax = 1024 * 2 ** 20;
const alignment = 256;
/** The driver hands out memory in pages of this size. */
const driverPageBytes = 2 * 2 ** 20;
/** Bytes left to the driver, to CUDA graphs and to other processes. */
const reserveBytes = 1024 * 2 ** 20;
/** Bytes that ops may still take at their first use, once the caches have taken the rest. */
const lateBytesMax = 256 * 2 ** 20;

/** The plan of the start is kept: an op that would need more memory than it took then is a bug. */
export class AllocationAfterStart extends Error {
  override readonly name = 'AllocationAfterStart';

  constructor(what: string, bytes: number) {
    super(`the GPU gives no more memory after the start: ${what} asks for ${bytes} bytes`);
  }
}

/** Bytes for weights, activations and caches of a GPU that has so many free. */
export function usableBytes(freeBytes: number): number {
  return freeBytes - reserveBytes;
}

export interface DeviceMemoryOptions {
  /** Bytes of weights, activations and caches together. */
  readonly limitBytes: number;
  /**
   * The address of that many bytes of the driver's, whole pages; it throws where there are none.
   * `what` they are for is named in that error, and `takenBytes` have been taken before.
   */
  take(bytes: number, what: string, takenBytes: number): number;
}

export class DeviceMemory {
  readonly limitBytes: number;
  readonly #take: DeviceMemoryOptions['take'];
  readonly #slabBytes: number;
  readonly #used: Record<Purpose, number> = { weight: 0, activation: 0, cache: 0 };
  #takenBytes = 0;
  #slab = { next: 0, end: 0 };
  #frozen = false;

  constructor({ limitBytes, take }: DeviceMemoryOptions) {
    this.limitBytes = limitBytes;
    this.#take = take;
    const slab = Math.min(slabBytesMax, Math.max(slabBytesMin, limitBytes / 128));
    this.#slabBytes = roundUp(slab, driverPageBytes);
  }

  /** Ends the allocations of the start: from here on nothing is allocated. */
  freeze(): void {
    this.#frozen = true;
  }

  /** The address of `bytes` bytes; `what` names them in the error when they do not fit. */
  allocate(bytes: number, purpose: Purpose, what: string): number {
    if (this.#frozen) throw new AllocationAfterStart(what, bytes);
    const size = roundUp(Math.max(bytes, 1), alignment);
    if (size > this.#slabBytes / 4) {
      const whole = roundUp(size, driverPageBytes);
      const alone = this.#takeWhole(whole, what);
      this.#used[purpose] += whole;
      return alone;
    }
    if (this.#slab.next + size > this.#slab.end) {
      const start = this.#takeWhole(this.#slabBytes, what);
      this.#slab = { next: start, end: start + this.#slabBytes };
    }
    const at = this.#slab.next;
    this.#slab.next += size;
    this.#used[purpose] += size;
    return at;
  }

  #takeWhole(bytes: number, what: string): number {
    const at = this.#take(bytes, what, this.#takenBytes);
    this.#takenBytes += bytes;
    return at;
  }

  use(): MemoryUse {
    const { weight, activation, cache } = this.#used;
    const late = Math.min(lateBytesMax, Math.floor(this.limitBytes / 8));
    return {
      weightBytes: weight,
      // Whatever is left of slabs may still be taken by any op.
      activationBytes: activation + this.#takenBytes - weight - activation - cache,
      cacheBytes: cache,
      limitBytes: this.limitBytes - late,
      reservedBytes: late + reserveBytes,
    };
  }
}

function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}
