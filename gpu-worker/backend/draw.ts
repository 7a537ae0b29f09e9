/**
 * From one row of scores to one token: greedy, or temperature, top_k, top_p, min_p and a draw. All
 * backends compute this to the bit, so that a seeded request gives the same tokens on any of them.
 *
 * What makes that possible: a token's weight is its probability relative to the most likely one's,
 * rounded to an integer of a scale at which the sum of a whole row is exact in float64. Then no sum
 * depends on its order. At a vocabulary of 129,280 the scale is 2^36: a token less than 7e-12 as
 * likely as the most likely one is never drawn, and all of those together weigh less than 1e-6 of
 * it.
 *
 * Order among tokens is everywhere: greater score first, then lower index. Neither top_k nor top_p
 * sorts: they look for the last token of that order that is still kept (a weighted quickselect),
 * and the draw then walks the row in index order past that bound.
 */
import { strict as assert } from 'node:assert';
import { at, missing } from '../at.ts';

export interface Draw {
  /** 0 is greedy; nothing else matters then. */
  readonly temperature: number;
  /** 0 keeps all tokens. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  /** In [0, 1): where in the weight of what is kept the token lies. */
  readonly unit: number;
}

/** Working space for rows of `vocabSize` scores; contents mean nothing between calls. */
export interface DrawScratch {
  readonly weights: Float64Array;
  readonly candidates: Int32Array;
}

export function createDrawScratch(vocabSize: number): DrawScratch {
  return { weights: new Float64Array(vocabSize), candidates: new Int32Array(vocabSize) };
}

/**
 * The token, or null where the scores are no distribution (NaN, +Infinity, nothing above
 * -Infinity). `scores` [vocabSize] are left as they are.
 */
export function drawToken(scores: Float32Array, draw: Draw, scratch: DrawScratch): number | null {
  const best = argmax(scores);
  if (best === null || draw.temperature === 0) return best;
  const { weights } = scratch;
  const scale = weightScale(scores.length);
  const bestScore = at(scores, best);
  let total = 0;
  for (let token = 0; token < scores.length; token++) {
    const score = scores[token] ?? missing();
    const weight = scaledExp((score - bestScore) / draw.temperature, scale);
    weights[token] = weight;
    total += weight;
  }
  const bound = lastKept(scores, total, draw, scratch);
  return walk(scores, { ...bound, weight: draw.minP * scale }, draw.unit, scratch);
}

/** Index of the greatest score, the lowest on ties; null where the scores are no distribution. */
export function argmax(scores: Float32Array): number | null {
  let best = 0;
  let bestScore = -Infinity;
  for (let token = 0; token < scores.length; token++) {
    const score = scores[token] ?? missing();
    if (score !== score) return null;
    if (score > bestScore) {
      best = token;
      bestScore = score;
    }
  }
  return Number.isFinite(bestScore) ? best : null;
}

/** The weight of the most likely token: the sum of a row stays below 2^53. */
export function weightScale(vocabSize: number): number {
  return 2 ** Math.min(40, 53 - Math.ceil(Math.log2(vocabSize)));
}

/** Below this e^x is less than half of the smallest weight at the largest scale. */
const exponentMin = -30;
const powersOfHalf = Float64Array.from({ length: 45 }, (_, n) => 0.5 ** n);

/**
 * e^x * scale as an integer, for x <= 0. Of our own, because `Math.exp` may be rounded otherwise on
 * another machine: kernels/sample.cu computes the same operations in the same order. The reduction
 * is Cody and Waite's, with ln 2 in two parts of which the first times n is exact.
 */
export function scaledExp(x: number, scale: number): number {
  if (!(x > exponentMin)) return 0;
  const n = Math.floor(x * Math.LOG2E + 0.5);
  const r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
  let series = 1 / 6227020800;
  series = 1 / 479001600 + r * series;
  series = 1 / 39916800 + r * series;
  series = 1 / 3628800 + r * series;
  series = 1 / 362880 + r * series;
  series = 1 / 40320 + r * series;
  series = 1 / 5040 + r * series;
  series = 1 / 720 + r * series;
  series = 1 / 120 + r * series;
  series = 1 / 24 + r * series;
  series = 1 / 6 + r * series;
  series = 0.5 + r * series;
  series = 1 + r * series;
  series = 1 + r * series;
  return Math.floor(series * ((powersOfHalf[0 - n] ?? missing()) * scale) + 0.5);
}

/** The last token that top_k and top_p keep: all that come before it in the order are kept too. */
interface Bound {
  readonly score: number;
  readonly token: number;
}

function lastKept(scores: Float32Array, total: number, draw: Draw, scratch: DrawScratch): Bound {
  const { weights, candidates } = scratch;
  const vocabSize = scores.length;
  const order = { scores, weights };
  let bound: Bound = { score: -Infinity, token: vocabSize - 1 };
  let keptTotal = total;
  let size = 0;

  const limitsCount = draw.topK > 0 && draw.topK < vocabSize;
  if (limitsCount) {
    for (let token = 0; token < vocabSize; token++) candidates[token] = token;
    size = selectPrefix(candidates, vocabSize, order, { count: draw.topK, mass: Infinity });
    bound = boundAt(candidates, size, scores);
    keptTotal = 0;
    for (let index = 0; index < size; index++) {
      keptTotal += weights[candidates[index] ?? missing()] ?? missing();
    }
  }
  if (draw.topP < 1) {
    if (!limitsCount) {
      // Tokens below this weight hold less than 1 - top_p together, roundings allowed for: the
      // nucleus needs none of them.
      const needed = (0.999 * total * (1 - draw.topP)) / vocabSize;
      for (let token = 0; token < vocabSize; token++) {
        if ((weights[token] ?? missing()) >= needed) candidates[size++] = token;
      }
    }
    const mass = draw.topP * keptTotal;
    size = selectPrefix(candidates, size, order, { count: Infinity, mass });
    bound = boundAt(candidates, size, scores);
  }
  return bound;
}

function boundAt(candidates: Int32Array, size: number, scores: Float32Array): Bound {
  const token = at(candidates, size - 1);
  return { score: at(scores, token), token };
}

/** Collects what the bound keeps, in index order, and walks it until `unit` of its weight. */
function walk(
  scores: Float32Array,
  bound: Bound & { readonly weight: number },
  unit: number,
  { weights, candidates }: DrawScratch,
): number {
  let size = 0;
  let kept = 0;
  for (let token = 0; token < weights.length; token++) {
    const weight = weights[token] ?? missing();
    if (weight < bound.weight || weight === 0) continue;
    const score = scores[token] ?? missing();
    if (score < bound.score || (score === bound.score && token > bound.token)) continue;
    candidates[size++] = token;
    kept += weight;
  }
  const target = unit * kept;
  let sum = 0;
  for (let index = 0; index < size; index++) {
    const token = candidates[index] ?? missing();
    sum += weights[token] ?? missing();
    if (sum > target) return token;
  }
  // The product above was rounded up to all of the weight.
  return at(candidates, size - 1);
}

interface Order {
  readonly scores: ArrayLike<number>;
  readonly weights: ArrayLike<number>;
}

/**
 * Rearranges candidates[0, size) so that its first n entries are the shortest prefix of the order
 * (score descending, index ascending) that has `count` entries or weighs `mass`; entry n - 1 is the
 * prefix's last. Returns n; all of them where neither is reached. Expected O(size).
 */
export function selectPrefix(
  candidates: Int32Array,
  size: number,
  order: Order,
  enough: { count: number; mass: number },
): number {
  assert(size > 0, 'there is always a most likely token');
  const { scores, weights } = order;
  let low = 0;
  let high = size;
  let massBefore = 0;
  while (high - low > 1) {
    const middle = partition(candidates, low, high, scores);
    let massLeft = massBefore;
    for (let index = low; index < middle; index++) {
      massLeft += weights[candidates[index] ?? missing()] ?? missing();
    }
    const massWithPivot = massLeft + at(weights, at(candidates, middle));
    if (middle > low && (middle >= enough.count || massLeft >= enough.mass)) {
      high = middle;
    } else if (middle + 1 >= enough.count || massWithPivot >= enough.mass) {
      return middle + 1;
    } else if (middle + 1 === high) {
      return high;
    } else {
      low = middle + 1;
      massBefore = massWithPivot;
    }
  }
  return high;
}

/** Splits [low, high) around the median of three; returns where the pivot came to stand. */
function partition(ids: Int32Array, low: number, high: number, scores: ArrayLike<number>): number {
  const idAt = (index: number): number => ids[index] ?? missing();
  const comesFirst = (a: number, b: number): boolean => {
    const scoreA = scores[a] ?? missing();
    const scoreB = scores[b] ?? missing();
    return scoreA > scoreB || (scoreA === scoreB && a < b);
  };
  const swap = (i: number, j: number): void => {
    const id = idAt(i);
    ids[i] = idAt(j);
    ids[j] = id;
  };
  const middle = (low + high) >> 1;
  const last = high - 1;
  if (comesFirst(idAt(middle), idAt(low))) swap(middle, low);
  if (comesFirst(idAt(last), idAt(low))) swap(last, low);
  if (comesFirst(idAt(middle), idAt(last))) swap(middle, last);
  const pivot = idAt(last);
  let store = low;
  for (let index = low; index < last; index++) {
    if (comesFirst(idAt(index), pivot)) swap(index, store++);
  }
  swap(store, last);
  return store;
}
