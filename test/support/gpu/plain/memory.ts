import { strict as assert } from 'node:assert';
import type { MemoryOps, MemoryUse } from '../../../../gpu-worker/backend/memory.ts';
import type { Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import { asPlain, PlainTensor } from './handles.ts';

export class PlainMemory implements MemoryOps {
  readonly host = null;

  tensor(rows: number, columns: number): Tensor {
    return new PlainTensor(rows, columns, new Float32Array(rows * columns), 0, columns);
  }

  columns(of: Tensor, start: number, count: number): Tensor {
    const tensor = asPlain(PlainTensor, of);
    assert(start + count <= tensor.columns, 'a view reaches past its tensor');
    return new PlainTensor(of.rows, count, tensor.values, tensor.start + start, tensor.stride);
  }

  use(): MemoryUse {
    const none = { weightBytes: 0, activationBytes: 0, cacheBytes: 0, reservedBytes: 0 };
    return { ...none, limitBytes: 4 * 2 ** 30 };
  }

  freeze(): void {}

  /** Sets the first rows, for tests. */
  fill(tensor: Tensor, values: Float32Array): void {
    const into = asPlain(PlainTensor, tensor);
    for (let r = 0; r < values.length / into.columns; r++) {
      into.row(r).set(values.subarray(r * into.columns, (r + 1) * into.columns));
    }
  }

  read(x: Tensor, rows: number): Float32Array {
    const out = new Float32Array(rows * x.columns);
    for (let r = 0; r < rows; r++) out.set(asPlain(PlainTensor, x).row(r), r * x.columns);
    return out;
  }
}
