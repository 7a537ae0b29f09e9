/** Float64 vectors, and the few sums over them that the model is made of. */

export type Vector = Float64Array;

/** A weight [outputs, inputs], dequantised; `fp8` tells that the checkpoint held it as e4m3. */
export interface Matrix {
  readonly outputs: number;
  readonly inputs: number;
  readonly values: Vector;
  readonly fp8: boolean;
}

/** The element, or an error where plain indexing would go on with undefined. */
export function at<T>(values: ArrayLike<T>, index: number): T {
  const value = values[index];
  return value === undefined ? missing(index, values.length) : value;
}

/** Long sums write `values[index] ?? missing(…)` themselves: a call for each element is slow. */
function missing(index: number, length: number): never {
  throw new RangeError(`index ${index} of ${length}`);
}

export function dot(a: Vector, b: Vector): number {
  if (a.length !== b.length) throw new RangeError(`${a.length} against ${b.length} values`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    sum += (a[i] ?? missing(i, a.length)) * (b[i] ?? missing(i, b.length));
  }
  return sum;
}

/** y = W x */
export function multiply({ outputs, inputs, values }: Matrix, x: Vector): Vector {
  if (inputs !== x.length) throw new RangeError(`${inputs} inputs against ${x.length} values`);
  const y = new Float64Array(outputs);
  for (let row = 0; row < outputs; row++) {
    let sum = 0;
    for (let i = 0; i < inputs; i++) {
      const weight = values[row * inputs + i] ?? missing(row * inputs + i, values.length);
      sum += weight * (x[i] ?? missing(i, x.length));
    }
    y[row] = sum;
  }
  return y;
}

/** Rows [start, start + count) of a weight, as a weight. */
export function rowsOf(weight: Matrix, start: number, count: number): Matrix {
  const { inputs, values, fp8 } = weight;
  const rows = values.subarray(start * inputs, (start + count) * inputs);
  return { outputs: count, inputs, values: rows, fp8 };
}

export function plus(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + at(b, i));
}

/** Adds factor * x to `sum`, in place. */
export function accumulate(sum: Vector, factor: number, x: Vector): void {
  if (sum.length !== x.length) throw new RangeError(`${sum.length} against ${x.length} values`);
  for (let i = 0; i < sum.length; i++) {
    sum[i] = (sum[i] ?? missing(i, sum.length)) + factor * (x[i] ?? missing(i, x.length));
  }
}

export function concat(parts: readonly Vector[]): Vector {
  const out = new Float64Array(parts.reduce((length, part) => length + part.length, 0));
  let start = 0;
  for (const part of parts) {
    out.set(part, start);
    start += part.length;
  }
  return out;
}

/** `count` equal pieces of x, as views. */
export function split(x: Vector, count: number): Vector[] {
  const size = x.length / count;
  return Array.from({ length: count }, (_, i) => x.subarray(i * size, (i + 1) * size));
}

export function rmsNorm(x: Vector, weight: Vector, epsilon: number): Vector {
  const factor = 1 / Math.sqrt(dot(x, x) / x.length + epsilon);
  return x.map((value, i) => value * factor * at(weight, i));
}

/** The norm has a bias, and the variance is over n rather than n - 1. */
export function layerNorm(x: Vector, weight: Vector, bias: Vector, epsilon: number): Vector {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const centred = x.map((value) => value - mean);
  const factor = 1 / Math.sqrt(dot(centred, centred) / x.length + epsilon);
  return centred.map((value, i) => value * factor * at(weight, i) + at(bias, i));
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function softmax(scores: Vector): Vector {
  const max = Math.max(...scores);
  const exps = scores.map((score) => Math.exp(score - max));
  const sum = exps.reduce((total, value) => total + value, 0);
  return exps.map((value) => value / sum);
}

/** The `count` best indices: score descending, then index ascending; -inf never counts. */
export function topIndices(scores: ArrayLike<number>, count: number): number[] {
  return Array.from(scores, (score, index) => ({ score, index }))
    .filter(({ score }) => score !== Number.NEGATIVE_INFINITY)
    .toSorted((a, b) => b.score - a.score || a.index - b.index)
    .slice(0, count)
    .map(({ index }) => index);
}
