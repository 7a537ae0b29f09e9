/** Draws tokens where the logits are. */
import type { Draw } from './draw.ts';
import type { Tensor } from './shapes.ts';

export interface SamplingOps {
  /**
   * The next token of each row of `f32` logits, drawn as draw.ts says, to the bit; null where the
   * row is no distribution. Row i is drawn by draws[i]; there are at most as many as the tensor has
   * rows.
   */
  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[];
}
