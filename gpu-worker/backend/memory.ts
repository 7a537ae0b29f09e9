/** The memory of a backend: all of it is taken at start. */
import type { Tensor, TensorPrecision } from './shapes.ts';

export interface MemoryUse {
  readonly weightBytes: number;
  readonly activationBytes: number;
  readonly cacheBytes: number;
  /** All that the backend can hold. */
  readonly limitBytes: number;
  /** Kept beside that: for CUDA graphs, the driver, and what ops take when first called. */
  readonly reservedBytes: number;
}

/** Buffers of the host that a device copies from by itself. */
export interface HostMemory {
  allocate(bytes: number): Uint8Array<ArrayBuffer>;
  /** The memory is gone when it returns: nothing may read or write there any more. */
  free(buffer: Uint8Array<ArrayBuffer>): void;
}

export interface MemoryOps {
  /** Memory that reaches the backend without a copy between, to read weights to; null: any does. */
  readonly host: HostMemory | null;
  /** `precision` is `activation` unless given. */
  tensor(rows: number, columns: number, precision?: TensorPrecision): Tensor;
  /** A view of columns [start, start + count) of every row. */
  columns(of: Tensor, start: number, count: number): Tensor;
  use(): MemoryUse;
  /**
   * Ends the start: from here on nothing is allocated, and an attempt to is an error. A backend
   * that compiles or sizes things when an op is first called has `warmUp` call them all before
   * that, at their largest.
   */
  freeze(warmUp: () => void): void;
  /** The first `rows` rows as float32 [rows, columns]; valid until the next op. */
  read(x: Tensor, rows: number): Float32Array;
}
