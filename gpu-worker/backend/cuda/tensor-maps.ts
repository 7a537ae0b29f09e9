/**
 * Tensor maps: what Hopper's copy engine must know of a matrix to copy boxes of it into shared memory.
 * Kernels take them among their arguments.
 */
import assert from 'node:assert/strict';
import koffi from 'koffi';
import type { Driver } from './driver.ts';
import { dtypeCode, type DtypeCode, elementBytes } from './handles.ts';

/** Bytes of a map, and the alignment that the driver wants of the one it writes. */
const mapBytes = 128;
const mapAlignment = 64;
/** Bytes of a box along the inputs: a row of the swizzle. */
const boxBytes = 128;
/** Rows of a weight's box. */
export const weightBoxRows = 64;
/** Maps that are remembered: of each weight, and of each tensor that products read. */
const mapsMax = 16_384;
/** From one expert's weight to another's there are whole units of this many bytes. */
const unitBytes = 256;

/** Elements of [rows, batch, inputs], strides in elements. */
export interface MappedTensor {
  readonly at: number;
  readonly format: DtypeCode;
  readonly inputs: number;
  readonly batches: number;
  readonly batchStride: number;
  readonly rows: number;
  readonly rowStride: number;
}

export class TensorMaps {
  readonly #driver: Driver;
  readonly #made = new Map<string, Uint32Array>();
  readonly #memory = new Uint8Array(mapBytes + mapAlignment);

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  /** The tensor's map for boxes of `boxRows` rows. */
  of(tensor: MappedTensor, boxRows: number): Uint32Array {
    const { at, format, inputs, batches, batchStride, rows, rowStride } = tensor;
    const key = `${at} ${format} ${inputs} ${batches} ${batchStride} ${rows} ${rowStride} ${boxRows}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    if (this.#made.size >= mapsMax) this.#made.clear();
    const map = this.#encode(tensor, boxRows);
    this.#made.set(key, map);
    return map;
  }

  /**
   * One map for weights [outputs, inputs] that lie anywhere: as a batch whose products overlap, each
   * `unitBytes` behind the one before. A weight at `at` is product (at - base) / unitBytes.
   */
  ofAll(weights: readonly MappedTensor[]): { map: Uint32Array; base: number } {
    const [first] = weights;
    assert(first !== undefined, 'there are no weights');
    const addresses = weights.map(({ at }) => at);
    const base = addresses.reduce((least, at) => Math.min(least, at));
    const last = addresses.reduce((most, at) => Math.max(most, at));
    assert(
      addresses.every((at) => at % unitBytes === base % unitBytes),
      'the experts do not lie whole units apart',
    );
    const batches = (last - base) / unitBytes + 1;
    const batchStride = unitBytes / elementBytes[first.format];
    return { map: this.of({ ...first, at: base, batches, batchStride }, weightBoxRows), base };
  }

  #encode(tensor: MappedTensor, boxRows: number): Uint32Array {
    const { at, format, inputs, batches, batchStride, rows, rowStride } = tensor;
    const width = elementBytes[format];
    assert(format !== dtypeCode.F32, 'products on the matrix unit read no float32');
    const strides = [batches === 1 ? rowStride : batchStride, rowStride].map((s) => s * width);
    assert(
      at % 16 === 0 && strides.every((stride) => stride % 16 === 0),
      'the copy engine needs addresses and strides of whole 16 bytes',
    );
    const misaligned = Number(koffi.address(this.#memory) % BigInt(mapAlignment));
    const start = misaligned === 0 ? 0 : mapAlignment - misaligned;
    const map = this.#memory.subarray(start, start + mapBytes);
    const { UINT8, BFLOAT16, SWIZZLE_128B, L2_256B } = tensorMapCode;
    this.#driver.call(
      'TensorMapEncodeTiled',
      [
        map,
        format === dtypeCode.BF16 ? BFLOAT16 : UINT8,
        3,
        at,
        BigUint64Array.from([inputs, batches, rows], BigInt),
        BigUint64Array.from(strides, BigInt),
        Uint32Array.of(boxBytes / width, 1, boxRows),
        Uint32Array.of(1, 1, 1),
        0,
        SWIZZLE_128B,
        L2_256B,
        0,
      ],
      `for a tensor of ${rows} x ${batches} x ${inputs}`,
    );
    return new Uint32Array(map.slice().buffer);
  }
}

/** Values of CUtensorMapDataType, CUtensorMapSwizzle and CUtensorMapL2promotion. */
const tensorMapCode = { UINT8: 0, BFLOAT16: 9, SWIZZLE_128B: 3, L2_256B: 3 } as const;
