/** Descriptions of matrices for the copy engine: what `cp.async.bulk.tensor` reads. */
import koffi from 'koffi';
import type { Device } from './device.ts';

const mapBytes = 128;
/** The driver reads a map at a multiple of this, and so does the GPU. */
const mapAlignment = 64;
/** Enumerators of cuda.h. */
const bfloat16 = 9;
const swizzle128Bytes = 3;
const promote256Bytes = 3;

/** Boxes of 64 columns and `boxRows` rows of a bf16 matrix, swizzled as in kernels/sm90.cuh. */
export interface Bf16Map {
  readonly at: number;
  readonly rows: number;
  readonly columns: number;
  readonly boxRows: number;
}

/** Device address of a map of the matrix, whose rows follow one another; made at start. */
export function makeTensorMap(device: Device, matrix: Bf16Map, what: string): number {
  const { at, rows, columns, boxRows } = matrix;
  const memory = new Uint8Array(mapBytes + mapAlignment);
  const misaligned = Number(koffi.address(memory) % BigInt(mapAlignment));
  const start = misaligned === 0 ? 0 : mapAlignment - misaligned;
  const map = memory.subarray(start, start + mapBytes);
  device.driver.call(
    'TensorMapEncodeTiled',
    [
      map,
      bfloat16,
      2,
      at,
      BigUint64Array.of(BigInt(columns), BigInt(rows)),
      BigUint64Array.of(BigInt(columns * 2)),
      Uint32Array.of(64, boxRows),
      Uint32Array.of(1, 1),
      0,
      swizzle128Bytes,
      promote256Bytes,
      0,
    ],
    `for a map of ${what}`,
  );
  const place = device.allocate(mapBytes, 'activation', `a map of ${what}`);
  device.upload(place, map);
  return place;
}
