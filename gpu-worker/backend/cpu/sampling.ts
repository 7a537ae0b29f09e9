/** Draws tokens from rows of logits (draw.ts). */
import { createDrawScratch, drawToken } from '../draw.ts';
import type { Draw, DrawScratch } from '../draw.ts';
import type { SamplingOps } from '../sampling.ts';
import type { Tensor } from '../shapes.ts';
import { checkedTensor } from './handles.ts';
import type { OpContext } from './op-context.ts';

export class CpuSampling implements SamplingOps {
  readonly #context: OpContext;
  #scratch: DrawScratch | null = null;

  constructor(context: OpContext) {
    this.#context = context;
  }

  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[] {
    const { at, stride, columns } = checkedTensor(logits, draws.length, logits.columns);
    const { f32 } = this.#context.arena;
    const known = this.#scratch;
    const scratch =
      known !== null && known.weights.length === columns ? known : createDrawScratch(columns);
    this.#scratch = scratch;
    return draws.map((draw, r) => {
      const start = (at + r * stride) / 4;
      return drawToken(f32.subarray(start, start + columns), draw, scratch);
    });
  }
}
