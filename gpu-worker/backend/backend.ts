/**
 * The contract between the forward graph (`model/deepseek/forward.ts`) and what computes it (`backend/cpu`,
 * `backend/cuda`): one method per op, shapes in the comments. Every op is synchronous for its
 * caller; a backend that queues work waits in `read*`. Ops never allocate: all tensors, caches and
 * selections are made at start.
 */

import type { Draw } from './draw.ts';

/** Tokens in a page of both caches, and in a block of the prefix cache. */
export const blockTokens = 64;

/**
 * Tokens of a sequence up to which `attendExpanded` is fast with a selection too, where it is without:
 * the other tokens are masked, and so much memory is set aside for masks.
 */
export const maskedTokensMax = 16_384;

/** How the backend rounds; `model/deepseek/numerics.ts` holds the presets. */
export interface Numerics {
  /**
   * Rounding of every activation that an op writes: none, or to bfloat16
   * (docs/engine-spec.md#number-formats).
   */
  readonly activations: 'f32' | 'bf16';
  /**
   * Whether a linear op with an fp8 weight quantises its input in groups of 128
   * (docs/engine-spec.md#linear-layers).
   */
  readonly quantizedLinear: boolean;
  /** Latent cache entries: float32, bfloat16, or e4m3 with a scale per 128 and a bfloat16 rope part. */
  readonly latentCache: 'f32' | 'bf16' | 'fp8';
  /** Index keys: float32, or e4m3 with one scale per key. Queries are rounded the same way. */
  readonly indexKeys: 'f32' | 'fp8';
  /**
   * Whether index queries and keys go through the Hadamard transform first
   * (docs/engine-spec.md#indexer).
   */
  readonly hadamard: boolean;
  /**
   * Scales of a linear op's quantised input: the exact quotient, or rounded up to a power of two.
   * Cache entries, index keys and index queries have powers of two always
   * (docs/engine-spec.md#number-formats).
   */
  readonly scaleFormat: 'f32' | 'ue8m0';
}

/**
 * A matrix of activations that the backend owns, [rows, columns], row-major. `rows` is its capacity;
 * ops are told how many rows are in use. `columns()` gives a view of some of its columns.
 */
export interface Tensor {
  readonly rows: number;
  readonly columns: number;
}

/**
 * What a tensor holds: activations, rounded as the numerics say; `input`, the same for those that
 * linear ops read, which a backend may keep in a second form for them; or float32 whatever the
 * numerics say (gate and output logits, index head weights, log-sum-exps). A backend may keep all of
 * them in float32.
 */
export type TensorPrecision = 'activation' | 'input' | 'f32';

/** A weight matrix [out, in] in its checkpoint dtype; `y = x W^T`. */
export interface Matrix {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
}

/** A float32 vector: norm weights, biases. */
export interface Vector {
  readonly name: string;
  readonly length: number;
}

/** Widths of a head's parts, and of the latents that keys and values are expanded from. */
export interface HeadShape {
  readonly heads: number;
  readonly latentDim: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
}

/** kv_b_proj seen per head, for weight absorption: nope -> latent and latent -> value. */
export interface AbsorbedKv {
  readonly name: string;
  readonly heads: number;
}

/** The three matrices of each routed expert. */
export interface Experts {
  readonly count: number;
}

export type WeightDtype = 'F32' | 'BF16' | 'F8_E4M3';

/**
 * A tensor that a model expects of its checkpoint. `matrix` may be F32, BF16, or F8_E4M3 with a
 * `<name>_scale_inv` beside it; `f32-matrix` is never fp8 (embedding, head, gate, index weights);
 * `vector` is F32 or BF16 and reaches the model as float32.
 */
export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: 'matrix' | 'f32-matrix' | 'vector';
  /** `skipped` tensors may stand in the checkpoint, are checked if they do, and are not loaded. */
  readonly use: 'needed' | 'skipped';
  /** For each dimension the keys of config.json that give it, for messages. */
  readonly keys?: readonly string[];
}

/** One tensor as the checkpoint holds it, little-endian, row-major; `bytes` may be reused by the next. */
export interface HostTensor {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  /** Only with F8_E4M3: [ceil(outputs / 128), ceil(inputs / 128)] multipliers, row-major. */
  readonly scales: Float32Array | null;
}

export interface ExpertMatrices {
  readonly gate: Matrix;
  readonly up: Matrix;
  readonly down: Matrix;
}

/** The paged caches of one layer: latent entries and index keys. They share block numbers. */
export interface LayerCache {
  readonly layer: number;
}

export interface CacheShape {
  readonly layers: number;
  readonly blocks: number;
  /** kv_lora_rank. */
  readonly latentDim: number;
  /** qk_rope_head_dim. */
  readonly ropeDim: number;
  /** index_head_dim, or 0 for a model without an indexer: then there are no index keys. */
  readonly indexDim: number;
}

/** For each row the positions of its selected tokens in its own sequence, [rows, width]. */
export interface Selection {
  readonly rows: number;
  readonly width: number;
}

/** For each row the experts it goes to and their weights, [rows, perToken]. */
export interface Routing {
  readonly rows: number;
  readonly perToken: number;
}

/**
 * One step's ragged batch. Rows of one sequence are adjacent and in order of position. Row r reads
 * the tokens 0..positions[r] of its sequence from the caches, itself included.
 */
export interface Batch {
  /** [rows] */
  readonly tokens: Int32Array;
  /** [rows] position of the row's token in its sequence. */
  readonly positions: Int32Array;
  /** [rows] cache slot that the row's token is written to: block * 64 + offset. */
  readonly slots: Int32Array;
  /** [rows] index of the row's sequence in `blockTables`. */
  readonly sequences: Int32Array;
  /** [sequences][blocks of the sequence] physical block numbers. */
  readonly blockTables: readonly Int32Array[];
}

export interface RopeTable {
  /** [positions, dim / 2] */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
  /** Width of the rotated part. */
  readonly dim: number;
}

/** `interleaved` rotates the pairs (2i, 2i + 1); `half` the pairs (i, i + dim / 2). */
export type RopeLayout = 'interleaved' | 'half';

export interface RotateOptions {
  readonly rows: number;
  readonly heads: number;
  readonly start: number;
  readonly layout: RopeLayout;
  readonly transform?: boolean;
}

export interface RouteOptions {
  readonly groups: number;
  readonly groupsKept: number;
  /** Whether the chosen weights are divided by their sum. */
  readonly normalize: boolean;
  readonly scale: number;
}

export interface SelectOptions {
  readonly heads: number;
  /** index_head_dim. */
  readonly dim: number;
}

export interface AttentionScale {
  readonly heads: number;
  /** Softmax scale, YaRN's factor included. */
  readonly scale: number;
}

export interface AttendOptions extends AttentionScale {
  /** The batch's first rows alone, whole sequences; all of them unless given. */
  readonly rows?: number;
}

export interface ExpandedAttendOptions extends AttentionScale {
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** The batch's rows from this one on, which begins a sequence; all of them unless given. */
  readonly firstRow?: number;
}

export interface MemoryUse {
  readonly weightBytes: number;
  readonly activationBytes: number;
  readonly cacheBytes: number;
  /** What the backend can hold in all. */
  readonly limitBytes: number;
  /** What it keeps beside that: for CUDA graphs, the driver, and what ops take when first called. */
  readonly reservedBytes: number;
}

/** Buffers of the host that a device copies from by itself. */
export interface HostMemory {
  allocate(bytes: number): Uint8Array<ArrayBuffer>;
  /** The memory is gone when it returns: nothing may read or write there any more. */
  free(buffer: Uint8Array<ArrayBuffer>): void;
}

export interface Backend {
  readonly name: 'cpu' | 'cuda';
  readonly numerics: Numerics;
  /** Where weights should be read to, to reach the backend without a copy between; null: anywhere. */
  readonly hostMemory: HostMemory | null;

  // ---- made at start -------------------------------------------------------------------------

  /** Copies and keeps the weight in its checkpoint dtype; shape [outputs, inputs]. */
  matrix(source: HostTensor): Matrix;
  /** `values` are float32 whatever the checkpoint's dtype was. */
  vector(name: string, values: Float32Array): Vector;
  /** Splits kv_b_proj [heads * (nope + value), latent] into its two absorbed halves. */
  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): AbsorbedKv;
  /** kv_b_proj [heads * (nope + value), latent] whole, with what `attendExpanded` needs of memory. */
  wholeKv(source: HostTensor, shape: HeadShape): Matrix;
  /** Whether many rows of a sequence attend faster with expanded keys and values than absorbed. */
  expandsFaster(shape: HeadShape): boolean;
  experts(matrices: readonly ExpertMatrices[]): Experts;
  ropeTable(table: RopeTable): void;

  /** `precision` is `activation` unless given. */
  tensor(rows: number, columns: number, precision?: TensorPrecision): Tensor;
  /** A view of columns [start, start + count) of every row. */
  columns(of: Tensor, start: number, count: number): Tensor;
  selection(rows: number, width: number): Selection;
  routing(rows: number, perToken: number): Routing;
  /** Bytes that one block of 64 tokens takes in the caches of all layers. */
  blockBytes(shape: Omit<CacheShape, 'blocks'>): number;
  caches(shape: CacheShape): readonly LayerCache[];
  memory(): MemoryUse;
  /**
   * Ends the making: from here on nothing is allocated, and an attempt to is an error. A backend that
   * compiles or sizes things when an op is first called has `warmUp` call them all before that, at
   * their largest.
   */
  freezeMemory(warmUp: () => void): void;

  // ---- one step ------------------------------------------------------------------------------

  /** Makes `batch` the one that the following ops read positions, slots and block tables from. */
  beginStep(batch: Batch): void;

  /**
   * Runs `ops`, which call this backend's ops for the current batch and read nothing. What they call
   * may depend on the batch and on `key` alone: a backend may capture the launches of `ops` and, for the
   * same key and a batch of the same shape, replay them without calling it.
   */
  captureOrReplay(key: number, ops: () => void): void;
  /** out[r] = table[tokens[r]] */
  embed(out: Tensor, table: Matrix): void;
  /** out[r] = x[r] * rsqrt(mean(x[r]^2) + epsilon) * weight. `out` may be `x`. */
  rmsNorm(out: Tensor, x: Tensor, weight: Vector, options: { rows: number; epsilon: number }): void;
  /** residual += x; out = rmsNorm(residual), the norm taken before the residual is rounded. */
  addRmsNorm(
    out: Tensor,
    residual: Tensor,
    x: Tensor,
    weight: Vector,
    options: { rows: number; epsilon: number },
  ): void;
  /** LayerNorm with weight and bias, biased variance. `out` may be `x`. */
  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: { rows: number; epsilon: number },
  ): void;
  /** residual += x, rounded. */
  add(residual: Tensor, x: Tensor, rows: number): void;
  /** out[r] = weight x[r]; in fp8 numerics the input of an fp8 weight is quantised first. */
  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void;
  /** As `linear`, in float32 throughout into an `f32` tensor: gate, index weights, LM head. */
  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void;
  /**
   * Rotates columns [start, start + rope dim) of each of `heads` equal parts of x, in place; with
   * `transform`, then does what `hadamard` does.
   */
  rotate(x: Tensor, options: RotateOptions): void;
  /** Walsh-Hadamard transform / sqrt(dim) of each of `heads` equal parts, in place, Sylvester order. */
  hadamard(x: Tensor, options: { rows: number; heads: number }): void;
  /** out = silu(gate) * up. `out` may be `gate`. */
  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void;
  /** out[i] = x[rowIndices[i]] */
  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void;

  /** Stores latent | rope key ([rows, latentDim + ropeDim], normed and rotated) at the batch's slots. */
  writeLatent(cache: LayerCache, entries: Tensor): void;
  /** Stores index keys ([rows, indexDim], normed, rotated and transformed) at the batch's slots. */
  writeIndexKeys(cache: LayerCache, keys: Tensor): void;
  /**
   * `writeLatent` of what `rmsNorm` makes of the latent part and `rotate` (interleaved) of the rope
   * part, rounded alike. `entries` is left with no meaning.
   */
  storeLatent(cache: LayerCache, entries: Tensor, norm: { weight: Vector; epsilon: number }): void;
  /**
   * `writeIndexKeys` of what `layerNorm` and `rotate` (from the first column on) make of the keys,
   * rounded alike. `keys` is left with no meaning.
   */
  storeIndexKeys(
    cache: LayerCache,
    keys: Tensor,
    norm: { weight: Vector; bias: Vector; epsilon: number },
    rotation: { layout: RopeLayout; transform: boolean },
  ): void;
  /**
   * The lightning indexer (docs/engine-spec.md#indexer): I(t, s) = sum_j w[t, j] * max(0, q[t, j] .
   * k[s]) over s <= t, then the top `width` of each row: score descending, index ascending on ties;
   * stored in ascending order. A row that sees at most `width` tokens selects all of them without
   * scoring. queries [rows, heads * dim]; weights [rows, heads] in `f32`, heads^-0.5 and dim^-0.5
   * not yet applied.
   */
  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void;

  /** out[h] = [q_nope[h] W_k[h] | q_rope[h]]; q [rows, heads * (nope + rope)], out [rows, heads * (latent + rope)] */
  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void;
  /** out[h] = W_v[h] latent[h]; latent [rows, heads * latent], out [rows, heads * value] */
  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void;
  /**
   * Absorbed attention (one shared kv head) of the batch's rows over their selected tokens, or
   * over all that they see when `selection` is null. q [rows, heads * (latent + rope)], out [rows,
   * heads * latent]; `lse` [rows, heads] in `f32` takes the natural log-sum-exp of the scaled scores if given.
   */
  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void;
  /**
   * The same attention without absorption: keys and values are expanded from the latents by `kvB`, a
   * `wholeKv`. q [rows, heads * (nope + rope)], out [rows, heads * value].
   */
  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void;

  /**
   * Sigmoid gate with correction bias and groups (docs/engine-spec.md#moe). logits [rows, experts]
   * in `f32`.
   */
  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void;
  /** out = shared + sum over the routed experts of weight * down(silu(gate x) * up x), one rounding. */
  moeForward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routing: Routing,
    experts: Experts,
    rows: number,
  ): void;

  // ---- results -------------------------------------------------------------------------------

  /**
   * The next token of each row of `f32` logits, drawn as draw.ts says, to the bit; null where the row is no
   * distribution. Row i by draws[i]; at most as many as the tensor has rows.
   */
  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[];
  /** The first `rows` rows as float32 [rows, columns]; valid until the next op. */
  read(x: Tensor, rows: number): Float32Array;
  /** The positions selected for each row, ascending. */
  readSelection(selection: Selection, rows: number): Int32Array[];
  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array };

  /** Ends threads and frees device memory. The backend can't be used afterwards. */
  close(): Promise<void>;
}
