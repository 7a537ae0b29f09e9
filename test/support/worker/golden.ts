/** The goldens' expected values, and what a run is compared with. */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Golden {
  /** The checkpoint. */
  readonly directory: string;
  readonly input_ids: number[];
  readonly positions: number[];
  /** [position][vocabulary] */
  readonly logits: Record<string, number[]>;
  readonly argmax: number[];
  readonly mean_nll: number;
  /** [layer][position], of the layers that have an indexer of their own. */
  readonly selected_tokens: Record<string, Record<string, number[]>>;
  /** [stage][index in positions] */
  readonly hidden_norms: number[][];
  readonly greedy: number[];
}

export const goldenNames = ['dsv32-f32', 'dsv32-fp8', 'glm-dsa-f32'] as const;
export type GoldenName = (typeof goldenNames)[number];

export function readGolden(name: GoldenName): Golden {
  const directory = fileURLToPath(new URL(`../../goldens/${name}/`, import.meta.url));
  // The file is ours and its README fixes the fields.
  const expected = JSON.parse(readFileSync(`${directory}expected.json`, 'utf8')) as Omit<
    Golden,
    'directory'
  >;
  return { ...expected, directory };
}

export function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) {
    if (Number(logits[i]) > Number(logits[best])) best = i;
  }
  return best;
}

/** Largest absolute difference; NaN anywhere makes it NaN. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new RangeError(`${a.length} against ${b.length} values`);
  let max = 0;
  for (let i = 0; i < a.length; i++) max = Math.max(max, Math.abs(Number(a[i]) - Number(b[i])));
  return max;
}

/** 1 - 2 sum(xy) / sum(x^2 + y^2): 0 when equal, and not fooled by scale. */
export function calcDiff(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new RangeError(`${a.length} against ${b.length} values`);
  let product = 0;
  let squares = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [Number(a[i]), Number(b[i])];
    product += x * y;
    squares += x * x + y * y;
  }
  return 1 - (2 * product) / squares;
}

/** Mean of -log softmax(logits[t])[tokens[t + 1]] over all tokens after the first. */
export function meanNll(logits: readonly ArrayLike<number>[], tokens: readonly number[]): number {
  let sum = 0;
  for (let t = 1; t < tokens.length; t++) {
    const values = logits[t - 1];
    assert(values !== undefined, 'every token but the last has logits');
    const row = Array.from(values);
    const max = Math.max(...row);
    const total = row.reduce((exps, logit) => exps + Math.exp(logit - max), 0);
    sum += max + Math.log(total) - Number(row[Number(tokens[t])]);
  }
  return sum / (tokens.length - 1);
}
