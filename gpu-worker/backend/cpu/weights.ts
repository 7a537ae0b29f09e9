/** Weights, packed for the kernels as they arrive (pack-weights.ts). */
import type { HeadShape } from '../shapes.ts';
import type { HostTensor, WeightOps } from '../weights.ts';
import type { CpuGemm } from './gemm.ts';
import { CpuVector } from './handles.ts';
import type { CpuAbsorbedKv, CpuMatrix } from './handles.ts';
import type { OpContext } from './op-context.ts';
import { packAbsorbed, packMatrix } from './pack-weights.ts';

export class CpuWeights implements WeightOps {
  readonly #context: OpContext;
  readonly #gemm: CpuGemm;

  constructor(context: OpContext, gemm: CpuGemm) {
    this.#context = context;
    this.#gemm = gemm;
  }

  matrix(source: HostTensor): CpuMatrix {
    const matrix = packMatrix(this.#context.arena, source);
    this.#gemm.reserve(matrix);
    return matrix;
  }

  vector(name: string, values: Float32Array): CpuVector {
    const { arena } = this.#context;
    const at = arena.allocate(values.byteLength, 'weight', name);
    arena.f32.set(values, at / 4);
    return new CpuVector(name, values.length, at);
  }

  absorb(
    source: HostTensor,
    shape: Pick<HeadShape, 'heads' | 'nopeDim' | 'valueDim'>,
  ): CpuAbsorbedKv {
    const { arena, numerics } = this.#context;
    const roundDecoded = numerics.activations === 'bf16';
    this.#gemm.reserveGemms(shape.heads);
    return packAbsorbed(arena, source, { ...shape, roundDecoded });
  }

  wholeKv(source: HostTensor): CpuMatrix {
    return this.matrix(source);
  }
}
