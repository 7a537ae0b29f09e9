/**
 * Draws one token from one row of logits, in the order that vLLM and the OpenAI API document:
 * logit_bias, repetition penalty (prompt and output), frequency and presence penalties (output
 * only), what the grammar allows, then temperature, top_k, top_p, min_p and the draw, which are the
 * backend's (draw.ts). Pure functions; the scratch space is the caller's.
 */
import { at, missing } from '../at.ts';
import { createDrawScratch, drawToken } from '../backend/draw.ts';
import type { DrawScratch } from '../backend/draw.ts';
import type { SamplingOptions } from './request.ts';

/** Working space for rows of `vocabSize` logits; contents mean nothing between calls. */
export interface SamplerScratch extends DrawScratch {
  readonly adjusted: Float32Array;
}

export function createSamplerScratch(vocabSize: number): SamplerScratch {
  return { adjusted: new Float32Array(vocabSize), ...createDrawScratch(vocabSize) };
}

/** The tokens that penalties look at. */
export interface TokenHistory {
  /** Distinct tokens of the prompt. */
  readonly prompt: Int32Array;
  /** Counts how often each token stands in the output so far. */
  readonly output: Map<number, number>;
}

/** Tells whether these options ever look at a history. */
export function readsHistory(options: SamplingOptions): boolean {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = options;
  return repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
}

/**
 * Tells whether the next token needs nothing but the row, so that it may be drawn where that is.
 */
export function drawsFromTheRow(options: SamplingOptions): boolean {
  return !readsHistory(options) && options.logitBias.length === 0;
}

/** The next token depends on these besides the row and the options. */
export interface SamplingContext {
  readonly history: TokenHistory | null;
  /** A bit for each token that may come next; null if all may. */
  readonly allowed: Uint32Array | null;
}

/**
 * The next token, or null where the logits are no distribution (NaN, +Infinity, nothing allowed
 * above -Infinity). `logits` [vocabSize] is left as it is. `draw` gives a number in [0, 1) and is
 * asked only if the temperature is above 0.
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  context: SamplingContext,
  draw: () => number,
  scratch: SamplerScratch,
): number | null {
  const scores = adjust(logits, options, context, scratch);
  const unit = options.temperature === 0 ? 0 : draw();
  return drawToken(scores, { ...options, unit }, scratch);
}

/** `logits` themselves where nothing is to be changed, else a changed copy in the scratch space. */
function adjust(
  logits: Float32Array,
  options: SamplingOptions,
  { history, allowed }: SamplingContext,
  scratch: SamplerScratch,
): Float32Array {
  if (history === null && allowed === null && options.logitBias.length === 0) return logits;
  const scores = scratch.adjusted;
  scores.set(logits);
  for (const [token, bias] of options.logitBias) scores[token] = at(scores, token) + bias;
  if (history !== null) penalize(scores, options, history);
  if (allowed !== null) ruleOut(scores, allowed);
  return scores;
}

/**
 * Takes infinity off what is not allowed, so that NaN and +Infinity stay or become NaN: a row that
 * is no distribution is not made one.
 */
function ruleOut(scores: Float32Array, allowed: Uint32Array): void {
  for (let word = 0; word < allowed.length; word++) {
    const bits = allowed[word] ?? missing();
    if (bits === 0xffffffff) continue;
    const end = Math.min(32 * word + 32, scores.length);
    for (let token = 32 * word; token < end; token++) {
      if (((bits >>> (token & 31)) & 1) !== 0) continue;
      scores[token] = (scores[token] ?? missing()) - Infinity;
    }
  }
}

function penalize(scores: Float32Array, options: SamplingOptions, history: TokenHistory): void {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = options;
  const repeat = (token: number): void => {
    // CTRL (Keskar et al. 2019): towards less likely on either side of zero.
    const score = scores[token] ?? missing();
    scores[token] = score > 0 ? score / repetitionPenalty : score * repetitionPenalty;
  };
  for (const token of history.prompt) if (!history.output.has(token)) repeat(token);
  for (const [token, count] of history.output) {
    repeat(token);
    scores[token] = at(scores, token) - (frequencyPenalty * count + presencePenalty);
  }
}
