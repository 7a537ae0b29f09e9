/** Tensors in the arena, and what is read of them. */
import { checkColumnsOf, checkTensorShape } from '../checks.ts';
import type { MemoryOps, MemoryUse } from '../memory.ts';
import type { Tensor } from '../shapes.ts';
import { asCpu, checkedTensor, CpuTensor } from './handles.ts';
import type { OpContext } from './op-context.ts';

export class CpuMemory implements MemoryOps {
  readonly host = null;
  readonly #context: OpContext;

  constructor(context: OpContext) {
    this.#context = context;
  }

  tensor(rows: number, columns: number): CpuTensor {
    checkTensorShape(rows, columns);
    const stride = Math.ceil(columns / 4) * 16;
    const what = `a tensor of ${rows} x ${columns}`;
    const at = this.#context.arena.allocate(rows * stride, 'activation', what);
    return new CpuTensor({ rows, columns, at, stride });
  }

  columns(of: Tensor, start: number, count: number): CpuTensor {
    const { rows, at, stride } = asCpu(CpuTensor, of);
    checkColumnsOf(of, start, count);
    return new CpuTensor({ rows, columns: count, at: at + start * 4, stride });
  }

  use(): MemoryUse {
    return this.#context.arena.use();
  }

  /** The first calls of ops take a few scratch arrays more, for which the arena can grow. */
  freeze(): void {}

  read(x: Tensor, rows: number): Float32Array {
    const { at, stride, columns } = checkedTensor(x, rows, x.columns);
    const { f32 } = this.#context.arena;
    const out = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      const start = (at + r * stride) / 4;
      out.set(f32.subarray(start, start + columns), r * columns);
    }
    return out;
  }
}
