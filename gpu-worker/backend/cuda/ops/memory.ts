/** Tensors in device memory, and what is read of them. */
import { strict as assert } from 'node:assert';
import { bf16ToF32 } from '../../bfloat16.ts';
import { checkColumnsOf, checkTensorShape } from '../../checks.ts';
import type { HostMemory, MemoryOps, MemoryUse } from '../../memory.ts';
import type { Tensor, TensorPrecision } from '../../shapes.ts';
import { asCuda, CudaTensor, dtypeCode, elementBytes } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { padded } from './gemm-inputs.ts';
import type { GemmInputs } from './gemm-inputs.ts';
import type { CudaIndexer } from './indexer.ts';

export class CudaMemory implements MemoryOps {
  readonly host: HostMemory;
  readonly #context: OpContext;
  readonly #inputs: GemmInputs;
  readonly #indexer: CudaIndexer;

  constructor(context: OpContext, inputs: GemmInputs, indexer: CudaIndexer) {
    this.host = context.device.hostMemory;
    this.#context = context;
    this.#inputs = inputs;
    this.#indexer = indexer;
  }

  tensor(rows: number, columns: number, precision: TensorPrecision = 'activation'): CudaTensor {
    checkTensorShape(rows, columns);
    const { device, activation } = this.#context;
    const format = precision === 'f32' ? dtypeCode.F32 : activation;
    const stride = padded(columns);
    const what = `a tensor of ${rows} x ${columns}`;
    const at = device.allocate(rows * stride * elementBytes[format], 'activation', what);
    const quantized = precision === 'input' ? this.#inputs.quantizedForm(rows, columns) : null;
    return new CudaTensor({
      rows,
      columns,
      at,
      stride,
      precision: precision === 'f32' ? 'f32' : 'activation',
      format,
      writes: { count: 0 },
      quantized,
    });
  }

  columns(of: Tensor, start: number, count: number): CudaTensor {
    const { at, format, ...place } = asCuda(CudaTensor, of);
    checkColumnsOf(of, start, count);
    const from = at + start * elementBytes[format];
    return new CudaTensor({ ...place, columns: count, at: from, format, quantized: null });
  }

  use(): MemoryUse {
    return this.#context.device.memory();
  }

  freeze(warmUp: () => void): void {
    warmUp();
    this.#context.kernels.close();
    this.#context.device.freezeMemory();
  }

  read(x: Tensor, rows: number): Float32Array {
    const { at, stride, columns, format, rows: capacity } = asCuda(CudaTensor, x);
    assert(rows <= capacity, `${rows} rows of a tensor of ${capacity}`);
    const count = (rows - 1) * stride + columns;
    const { buffer } = this.#context.device.download(at, count * elementBytes[format]);
    const all =
      format === dtypeCode.F32 ? new Float32Array(buffer) : bf16ToF32(new Uint16Array(buffer));
    this.#indexer.checkNan();
    if (stride === columns) return all;
    const out = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      out.set(all.subarray(r * stride, r * stride + columns), r * columns);
    }
    return out;
  }
}
