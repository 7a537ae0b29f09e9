import type { AbsorbedKv, Matrix, Vector } from '../../../../gpu-worker/backend/shapes.ts';
import type { HostTensor, WeightOps } from '../../../../gpu-worker/backend/weights.ts';
import { PlainAbsorbedKv, PlainMatrix, PlainVector } from './handles.ts';

export class PlainWeights implements WeightOps {
  matrix(source: HostTensor): Matrix {
    return new PlainMatrix(source);
  }

  vector(name: string, values: Float32Array): Vector {
    return new PlainVector(name, values.slice());
  }

  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): AbsorbedKv {
    const matrix = new PlainMatrix(source);
    return new PlainAbsorbedKv(source.name, shape.heads, shape.nopeDim, shape.valueDim, matrix);
  }

  wholeKv(source: HostTensor): Matrix {
    return this.matrix(source);
  }
}
