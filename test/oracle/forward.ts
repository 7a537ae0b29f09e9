/**
 * The whole of a DeepSeek-V3, DeepSeek-V3.2 or GLM-5 model in float64, one sequence at once,
 * written from the formulas of docs/engine-spec.md and from nothing else: no caches, no batches, no
 * tricks. It is here to be believed, so every step stands in the order in which that page names it.
 */
import type { Oracle } from './checkpoint.ts';
import { hasExperts, indexerConfig, indexerType } from './config.ts';
import type { IndexerConfig } from './config.ts';
import { route } from './gate.ts';
import { hadamard } from './hadamard.ts';
import { throughE4m3, toBf16 } from './number-formats.ts';
import type { ScaleFormat } from './number-formats.ts';
import { ropeFrequencies, rotate, softmaxScale } from './rope.ts';
import {
  accumulate,
  at,
  concat,
  dot,
  layerNorm,
  multiply,
  plus,
  rmsNorm,
  rowsOf,
  sigmoid,
  softmax,
  split,
  topIndices,
} from './vector.ts';
import type { Matrix, Vector } from './vector.ts';

export interface OracleOptions {
  /** `dense` ignores the indexer; models without one always attend to everything. */
  readonly attention?: 'sparse' | 'dense';
  /** The deployment numerics: bfloat16 activations, fp8 linear inputs, latents and index keys. */
  readonly quantized?: boolean;
  /** Scales of quantised activations; only with `quantized`. */
  readonly scaleFormat?: ScaleFormat;
  /** The format of cached latents under `quantized`; fp8 unless told. */
  readonly latents?: 'fp8' | 'bf16';
  /** Attention in latent space. Equal to the expanded form but for rounding. */
  readonly absorbed?: boolean;
  /** Picks the best tokens; by default score descending, then index ascending. */
  readonly pick?: PickTokens;
}

/**
 * The `count` best of `scores`, which has one entry per token of the sequence, -inf for the future.
 */
export type PickTokens = (scores: ArrayLike<number>, count: number) => number[];

export interface OracleResult {
  /** [position][vocabulary] */
  readonly logits: Vector[];
  /**
   * [layer][position] positions the layer's own indexer picked, ascending: none for a layer that
   * shares another's selection, and no layers without an indexer.
   */
  readonly selected: number[][][];
  /** [stage][position][hidden]: after the embedding, after each layer, the last after the norm. */
  readonly hidden: Vector[][];
}

interface Pass {
  readonly oracle: Oracle;
  readonly options: Required<OracleOptions>;
  readonly frequencies: Vector;
  readonly selected: number[][][];
}

/**
 * Epsilons that config.json does not name: of the indexer's LayerNorm, and of the RMSNorms of the
 * query and key-value latents, which GLM-5's rms_norm_eps of 1e-5 does not reach.
 */
const layerNormEpsilon = 1e-6;
const latentNormEpsilon = 1e-6;

export function oracleForward(
  oracle: Oracle,
  tokens: readonly number[],
  options: OracleOptions = {},
): OracleResult {
  const pass = begin(oracle, options);
  let stream = unchanged(embed(pass, tokens));
  const hidden = [stream.states];
  for (let layer = 0; layer < oracle.config.num_hidden_layers; layer++) {
    const next = runLayer(pass, layer, stream);
    if (layer > 0) hidden.push(next.entered);
    stream = next;
  }
  const last = addNorm(pass, stream, 'model.norm.weight').out;
  hidden.push(last);
  return { logits: last.map((x) => toLogits(pass, x)), selected: pass.selected, hidden };
}

/**
 * The logits of the draft that the model's module for multi-token prediction makes at each position
 * but the last (docs/engine-spec.md#multi-token-prediction): those at t, where token t + 1 is
 * known already, are for token t + 2.
 */
export function oracleDrafts(
  oracle: Oracle,
  tokens: readonly number[],
  options: OracleOptions = {},
): Vector[] {
  const hidden = at(oracleForward(oracle, tokens, options).hidden.slice(-1), 0);
  const pass = begin(oracle, options);
  const layer = oracle.config.num_hidden_layers;
  const prefix = `model.layers.${layer}`;
  const norm = (x: Vector, name: string): Vector => {
    const weight = oracle.vector(`${prefix}.${name}.weight`);
    return round(pass, rmsNorm(x, weight, oracle.config.rms_norm_eps));
  };
  const projection = oracle.matrix(`${prefix}.eh_proj.weight`);
  const inputs = embed(pass, tokens.slice(1)).map((embedding, t) =>
    linear(pass, projection, concat([norm(embedding, 'enorm'), norm(at(hidden, t), 'hnorm')])),
  );
  const stream = runLayer(pass, layer, unchanged(inputs));
  const { out } = addNorm(pass, stream, `${prefix}.shared_head.norm.weight`);
  return out.map((x) => toLogits(pass, x));
}

function begin(oracle: Oracle, options: OracleOptions): Pass {
  const quantized = options.quantized ?? false;
  return {
    oracle,
    options: {
      attention: options.attention ?? 'sparse',
      quantized,
      scaleFormat: options.scaleFormat ?? 'ue8m0',
      latents: options.latents ?? 'fp8',
      absorbed: options.absorbed ?? quantized,
      pick: options.pick ?? topIndices,
    },
    frequencies: ropeFrequencies(oracle.config),
    selected: [],
  };
}

/** The hidden states as they are carried on, and what the last part adds to them. */
interface Stream {
  readonly states: Vector[];
  readonly update: Vector[];
}

function unchanged(states: Vector[]): Stream {
  return { states, update: states.map((state): Vector => new Float64Array(state.length)) };
}

function embed(pass: Pass, tokens: readonly number[]): Vector[] {
  const embedding = pass.oracle.matrix('model.embed_tokens.weight');
  return tokens.map((token) => round(pass, rowsOf(embedding, token, 1).values));
}

function toLogits({ oracle }: Pass, x: Vector): Vector {
  return multiply(oracle.matrix('lm_head.weight'), x);
}

/** @returns the stream behind the layer, and the states that it was entered with. */
function runLayer(
  pass: Pass,
  layer: number,
  stream: Stream,
): Stream & { readonly entered: Vector[] } {
  const prefix = `model.layers.${layer}`;
  const entered = addNorm(pass, stream, `${prefix}.input_layernorm.weight`);
  const attended = {
    states: entered.states,
    update: attention(pass, layer, entered.out),
  };
  const normed = addNorm(pass, attended, `${prefix}.post_attention_layernorm.weight`);
  const feedForward = hasExperts(pass.oracle.config, layer) ? mixtureOfExperts : denseFeedForward;
  const update = normed.out.map((x) => feedForward(pass, `${prefix}.mlp`, x));
  return { states: normed.states, update, entered: entered.states };
}

function round({ options }: Pass, x: Vector): Vector {
  return options.quantized ? x.map(toBf16) : x;
}

function quantize(
  { options }: Pass,
  x: Vector,
  groupSize: number,
  scaleFormat: ScaleFormat = 'ue8m0',
): Vector {
  return options.quantized ? throughE4m3(x, groupSize, scaleFormat) : x;
}

/** The norm sees the sum before it is rounded to be carried on. */
function addNorm(pass: Pass, { states, update }: Stream, weightName: string) {
  const weight = pass.oracle.vector(weightName);
  const sums = states.map((state, t) => plus(state, at(update, t)));
  const epsilon = pass.oracle.config.rms_norm_eps;
  return {
    states: sums.map((sum) => round(pass, sum)),
    out: sums.map((sum) => round(pass, rmsNorm(sum, weight, epsilon))),
  };
}

function latentNorm(pass: Pass, weightName: string, x: Vector): Vector {
  return round(pass, rmsNorm(x, pass.oracle.vector(weightName), latentNormEpsilon));
}

/** Only weights that are fp8 themselves have their input quantised. */
function linear(pass: Pass, weight: Matrix, x: Vector): Vector {
  return round(
    pass,
    multiply(weight, weight.fp8 ? quantize(pass, x, 128, pass.options.scaleFormat) : x),
  );
}

interface Keys {
  readonly latent: Vector;
  readonly rope: Vector;
}

function attention(pass: Pass, layer: number, xs: Vector[]): Vector[] {
  const prefix = `model.layers.${layer}.self_attn`;
  const { oracle, frequencies } = pass;
  const { config } = oracle;
  const { num_attention_heads: heads, qk_nope_head_dim: nope, kv_lora_rank: rank } = config;
  const turn = (x: Vector, position: number) =>
    round(pass, rotate(x, { position, frequencies, layout: 'interleaved' }));

  const inputs = queryInputs(pass, prefix, xs);
  const queryName = config.q_lora_rank ? 'q_b_proj' : 'q_proj';
  const queryWeight = oracle.matrix(`${prefix}.${queryName}.weight`);
  const queries = inputs.map((input, t) =>
    split(linear(pass, queryWeight, input), heads).map((q) => ({
      nope: q.subarray(0, nope),
      rope: turn(q.subarray(nope), t),
    })),
  );
  const keyWeight = oracle.matrix(`${prefix}.kv_a_proj_with_mqa.weight`);
  const keys = xs.map((x, t): Keys => {
    const both = linear(pass, keyWeight, x);
    const latent = latentNorm(pass, `${prefix}.kv_a_layernorm.weight`, both.subarray(0, rank));
    // Everybody reads the cached latent, this step included; the rope part stays as it is.
    const cached = pass.options.latents === 'fp8' ? quantize(pass, latent, 128) : latent;
    return { latent: cached, rope: turn(both.subarray(rank), t) };
  });
  const selected = tokensOf(pass, layer, { xs, queryInput: inputs });
  const attend = pass.options.absorbed ? attendAbsorbed : attendExpanded;
  const outputs = attend(pass, prefix, { queries, keys, selected });
  const outputWeight = oracle.matrix(`${prefix}.o_proj.weight`);
  return outputs.map((output) => linear(pass, outputWeight, output));
}

/** The input of the query projections: the normed low-rank query, or the hidden state itself. */
function queryInputs(pass: Pass, prefix: string, xs: Vector[]): Vector[] {
  if (!pass.oracle.config.q_lora_rank) return xs;
  const weight = pass.oracle.matrix(`${prefix}.q_a_proj.weight`);
  return xs.map((x) => latentNorm(pass, `${prefix}.q_a_layernorm.weight`, linear(pass, weight, x)));
}

interface Attention {
  /** [position][head] */
  readonly queries: { nope: Vector; rope: Vector }[][];
  /** [position] */
  readonly keys: Keys[];
  /** [position] the positions it attends to. */
  readonly selected: number[][];
}

/** Keys and values of every head, expanded from the latents. */
function attendExpanded(pass: Pass, prefix: string, sources: Attention): Vector[] {
  const { oracle } = pass;
  const { num_attention_heads: heads, qk_nope_head_dim: nope } = oracle.config;
  const weight = oracle.matrix(`${prefix}.kv_b_proj.weight`);
  const scale = softmaxScale(oracle.config);
  const expanded = sources.keys.map(({ latent, rope }) =>
    split(linear(pass, weight, latent), heads).map((kv) => ({
      key: concat([kv.subarray(0, nope), rope]),
      value: kv.subarray(nope),
    })),
  );
  return sources.queries.map((query, t) => {
    const seen = at(sources.selected, t).map((s) => at(expanded, s));
    const outputs = query.map((q, head) => {
      const both = concat([q.nope, q.rope]);
      const scores = seen.map((keys) => dot(both, at(keys, head).key) * scale);
      return weightedSum(
        softmax(Float64Array.from(scores)),
        seen.map((keys) => at(keys, head).value),
      );
    });
    return round(pass, concat(outputs));
  });
}

/** One shared key head: queries go to latent space, the mean latent comes back from it. */
function attendAbsorbed(pass: Pass, prefix: string, sources: Attention): Vector[] {
  const { oracle } = pass;
  const { qk_nope_head_dim: nope, v_head_dim: valueDim, kv_lora_rank: rank } = oracle.config;
  const stored = oracle.matrix(`${prefix}.kv_b_proj.weight`);
  // An fp8 weight is dequantised to bfloat16 for absorption, not multiplied as fp8.
  const weight = stored.fp8 ? { ...stored, values: round(pass, stored.values) } : stored;
  const scale = softmaxScale(oracle.config);
  return sources.queries.map((query, t) => {
    const seen = at(sources.selected, t).map((s) => at(sources.keys, s));
    const latents = seen.map(({ latent }) => latent);
    const outputs = query.map((q, head) => {
      const firstRow = head * (nope + valueDim);
      const keyRows = split(rowsOf(weight, firstRow, nope).values, nope);
      const valueWeight = rowsOf(weight, firstRow + nope, valueDim);
      const latentQuery = round(pass, weightedSum(q.nope, keyRows, rank));
      const scores = seen.map((key) => dot(latentQuery, key.latent) + dot(q.rope, key.rope));
      const probabilities = softmax(Float64Array.from(scores, (score) => score * scale));
      return multiply(valueWeight, round(pass, weightedSum(probabilities, latents, rank)));
    });
    return round(pass, concat(outputs));
  });
}

function weightedSum(weights: Vector, vectors: readonly Vector[], size?: number): Vector {
  const sum = new Float64Array(size ?? at(vectors, 0).length);
  vectors.forEach((vector, i) => accumulate(sum, at(weights, i), vector));
  return sum;
}

/** The positions that each position attends to (docs/engine-spec.md#selection). */
function tokensOf(
  pass: Pass,
  layer: number,
  inputs: { xs: Vector[]; queryInput: Vector[] },
): number[][] {
  const { config } = pass.oracle;
  const indexer = indexerConfig(config);
  const all = inputs.xs.map((_, t) => Array.from({ length: t + 1 }, (__, s) => s));
  if (indexer === null) return all;
  const isFull = indexerType(config, layer) === 'full';
  pass.selected.push(isFull ? select(pass, layer, indexer, inputs) : []);
  if (pass.options.attention === 'dense') return all;
  const last = pass.selected.findLast((rows) => rows.length > 0);
  if (last === undefined) throw new Error(`layer ${layer} has no selection to share`);
  return last;
}

/** The lightning indexer of a layer (docs/engine-spec.md#indexer). */
function select(
  pass: Pass,
  layer: number,
  { heads, dim, topK, ropeLayout: layout }: IndexerConfig,
  { xs, queryInput }: { xs: Vector[]; queryInput: Vector[] },
): number[][] {
  const { oracle, frequencies, options } = pass;
  const prefix = `model.layers.${layer}.self_attn`;
  const ropeDim = oracle.config.qk_rope_head_dim;
  const turn = (x: Vector, position: number) => {
    const rope = rotate(x.subarray(0, ropeDim), { position, frequencies, layout });
    return round(pass, concat([rope, x.subarray(ropeDim)]));
  };
  // Orthonormal on both sides, so exact numerics can leave it out.
  const spread = (x: Vector) => (options.quantized ? round(pass, hadamard(x)) : x);

  const queryWeight = oracle.matrix(`${prefix}.indexer.wq_b.weight`);
  const queries = queryInput.map((input, t) =>
    split(linear(pass, queryWeight, input), heads).map((q) =>
      quantize(pass, spread(turn(q, t)), dim),
    ),
  );
  const keyWeight = oracle.matrix(`${prefix}.indexer.wk.weight`);
  const gain = oracle.vector(`${prefix}.indexer.k_norm.weight`);
  const bias = oracle.vector(`${prefix}.indexer.k_norm.bias`);
  const keys = xs.map((x, t) => {
    const key = layerNorm(linear(pass, keyWeight, x), gain, bias, layerNormEpsilon);
    return quantize(pass, spread(turn(round(pass, key), t)), dim);
  });
  const headWeight = oracle.matrix(`${prefix}.indexer.weights_proj.weight`);
  return xs.map((x, t) => {
    const weights = multiply(headWeight, x).map((w) => w * heads ** -0.5 * dim ** -0.5);
    const scoreOf = (key: Vector) =>
      at(queries, t).reduce((sum, q, j) => sum + at(weights, j) * Math.max(0, dot(q, key)), 0);
    const scores = keys.map((key, s) => (s <= t ? scoreOf(key) : Number.NEGATIVE_INFINITY));
    return options
      .pick(scores, topK)
      .filter((s) => s <= t)
      .toSorted((a, b) => a - b);
  });
}

function denseFeedForward(pass: Pass, prefix: string, x: Vector): Vector {
  const { oracle } = pass;
  const gate = linear(pass, oracle.matrix(`${prefix}.gate_proj.weight`), x);
  const up = linear(pass, oracle.matrix(`${prefix}.up_proj.weight`), x);
  const product = gate.map((g, i) => g * sigmoid(g) * at(up, i));
  return linear(pass, oracle.matrix(`${prefix}.down_proj.weight`), round(pass, product));
}

function mixtureOfExperts(pass: Pass, prefix: string, x: Vector): Vector {
  const { oracle } = pass;
  const logits = multiply(oracle.matrix(`${prefix}.gate.weight`), x);
  const bias = oracle.vector(`${prefix}.gate.e_score_correction_bias`);
  const sum = Float64Array.from(denseFeedForward(pass, `${prefix}.shared_experts`, x));
  for (const { expert, weight } of route(logits, bias, oracle.config)) {
    accumulate(sum, weight, denseFeedForward(pass, `${prefix}.experts.${expert}`, x));
  }
  return round(pass, sum);
}
