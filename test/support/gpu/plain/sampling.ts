import type { Draw } from '../../../../gpu-worker/backend/draw.ts';
import type { SamplingOps } from '../../../../gpu-worker/backend/sampling.ts';
import type { Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import { asPlain, PlainTensor } from './handles.ts';

export class PlainSampling implements SamplingOps {
  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[] {
    return draws.map((draw, r) => sampleRow([...asPlain(PlainTensor, logits).row(r)], draw));
  }
}

/** Sorts the tokens, cuts what top-k, top-p and min-p cut, sorts back and walks. */
function sampleRow(logits: number[], draw: Draw): number | null {
  const max = Math.max(...logits);
  if (!Number.isFinite(max)) return null;
  if (draw.temperature === 0) return logits.indexOf(max);
  let kept = logits
    .map((logit, token) => ({ logit, token, weight: Math.exp((logit - max) / draw.temperature) }))
    .toSorted((a, b) => b.logit - a.logit || a.token - b.token);
  if (draw.topK > 0) kept = kept.slice(0, draw.topK);
  const sum = (list: typeof kept) => list.reduce((all, { weight }) => all + weight, 0);
  const mass = sum(kept);
  let before = 0;
  kept = kept.filter(({ weight }, i) => {
    const isNeeded = i === 0 || draw.topP === 1 || before < draw.topP * mass;
    before += weight;
    return isNeeded;
  });
  kept = kept.filter(({ weight }) => weight >= draw.minP).toSorted((a, b) => a.token - b.token);
  const target = draw.unit * sum(kept);
  let passed = 0;
  const found = kept.find(({ weight }) => (passed += weight) > target);
  return (found ?? kept.at(-1))?.token ?? null;
}
