/**
 * Tensor maps: what Hopper's copy engine must know of a matrix to copy boxes of it into shared
 * memory. Kernels take them among their arguments, or by address.
 */
import { strict as assert } from 'node:assert';
import koffi from 'koffi';
import type { Driver } from './driver.ts';
import { dtypeCode, elementBytes } from '../handles.ts';
import type { DtypeCode } from '../handles.ts';

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
  readonly #driver: Pick<Driver, 'call'>;
  readonly #made = new Map<string, Uint32Array>();

  constructor(driver: Pick<Driver, 'call'>) {
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
   * One map for weights [outputs, inputs] that lie anywhere: as a batch whose products overlap,
   * each `unitBytes` behind the one before. A weight at `at` is product (at - base) / unitBytes.
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
    const map = encodeTensorMap(
      this.#driver,
      {
        at,
        format,
        sizes: [inputs, batches, rows],
        strideBytes: [(batches === 1 ? rowStride : batchStride) * width, rowStride * width],
        boxRows,
      },
      `a tensor of ${rows} x ${batches} x ${inputs}`,
    );
    return new Uint32Array(map.buffer);
  }
}

/**
 * A tensor in boxes of 128 bytes along its innermost dimension and `boxRows` along its outermost.
 */
interface Boxed {
  readonly at: number;
  readonly format: DtypeCode;
  /** Elements of each dimension, the innermost first. */
  readonly sizes: readonly number[];
  /** From one to the next in each dimension but the innermost. */
  readonly strideBytes: readonly number[];
  readonly boxRows: number;
}

/** The driver's description, `mapBytes` long, of boxes swizzled as in kernels/sm90.cuh. */
export function encodeTensorMap(
  driver: Pick<Driver, 'call'>,
  tensor: Boxed,
  what: string,
): Uint8Array {
  const { at, format, sizes, strideBytes, boxRows } = tensor;
  assert(format !== dtypeCode.F32, 'tensor cores read no float32');
  assert(
    at % 16 === 0 && strideBytes.every((stride) => stride % 16 === 0),
    'the copy engine needs addresses and strides of whole 16 bytes',
  );
  const memory = new Uint8Array(mapBytes + mapAlignment);
  const misaligned = Number(koffi.address(memory) % BigInt(mapAlignment));
  const start = misaligned === 0 ? 0 : mapAlignment - misaligned;
  const map = memory.subarray(start, start + mapBytes);
  const box = sizes.map(() => 1);
  box[0] = boxBytes / elementBytes[format];
  box[box.length - 1] = boxRows;
  const { UINT8, BFLOAT16, SWIZZLE_128B, L2_256B } = tensorMapCode;
  driver.call(
    'TensorMapEncodeTiled',
    [
      map,
      format === dtypeCode.BF16 ? BFLOAT16 : UINT8,
      sizes.length,
      at,
      BigUint64Array.from(sizes, BigInt),
      BigUint64Array.from(strideBytes, BigInt),
      Uint32Array.from(box),
      new Uint32Array(sizes.length).fill(1),
      0,
      SWIZZLE_128B,
      L2_256B,
      0,
    ],
    `for a map of ${what}`,
  );
  return map.slice();
}

/** Values of CUtensorMapDataType, CUtensorMapSwizzle and CUtensorMapL2promotion. */
const tensorMapCode = { UINT8: 0, BFLOAT16: 9, SWIZZLE_128B: 3, L2_256B: 3 } as const;
