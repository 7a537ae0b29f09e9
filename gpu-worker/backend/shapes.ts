/** Handles of what a backend owns, as the graph sees them: shapes without places. */

/**
 * A matrix of activations that the backend owns, [rows, columns], row-major. `rows` is its
 * capacity; ops are told how many rows are in use. `columns()` gives a view of some of its columns.
 */
export interface Tensor {
  readonly rows: number;
  readonly columns: number;
}

/**
 * A tensor holds activations, rounded as the numerics say; `input`, the same for those that linear
 * ops read, which a backend may keep in a second form for them; or float32 whatever the numerics
 * say (gate and output logits, index head weights, log-sum-exps). A backend may keep all in
 * float32.
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
  /** Layers without index keys where the others have them; none unless given. */
  readonly keylessLayers?: ReadonlySet<number>;
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

/** A vector that a backend placed at an address. */
export class PlacedVector implements Vector {
  readonly name: string;
  readonly length: number;
  readonly at: number;

  constructor(name: string, length: number, at: number) {
    this.name = name;
    this.length = length;
    this.at = at;
  }
}

/** A selection that a backend placed at addresses. */
export class PlacedSelection implements Selection {
  readonly rows: number;
  readonly width: number;
  /** [rows, width] i32 positions, ascending. */
  readonly at: number;
  /** [rows] i32 how many of them there are. */
  readonly counts: number;

  constructor(shape: { rows: number; width: number }, place: { at: number; counts: number }) {
    this.rows = shape.rows;
    this.width = shape.width;
    this.at = place.at;
    this.counts = place.counts;
  }
}

/** A routing that a backend placed at addresses. */
export class PlacedRouting implements Routing {
  readonly rows: number;
  readonly perToken: number;
  /** [rows, perToken] i32 */
  readonly experts: number;
  /** [rows, perToken] f32 */
  readonly weights: number;

  constructor(
    shape: { rows: number; perToken: number },
    place: { experts: number; weights: number },
  ) {
    this.rows = shape.rows;
    this.perToken = shape.perToken;
    this.experts = place.experts;
    this.weights = place.weights;
  }
}

/** The places and sizes (cache-layout.ts) of a layer's caches. */
export interface CachePlace {
  /** Latent entries [blocks * 64], and bytes of one. */
  readonly latents: number;
  readonly entryBytes: number;
  /** Pages of index keys [blocks], and bytes of one. */
  readonly keys: number;
  readonly pageBytes: number;
}

/** The caches of a layer that a backend placed at addresses. */
export class PlacedCache implements LayerCache, CachePlace {
  readonly layer: number;
  readonly shape: CacheShape;
  readonly latents: number;
  readonly entryBytes: number;
  readonly keys: number;
  readonly pageBytes: number;

  constructor(layer: number, shape: CacheShape, place: CachePlace) {
    this.layer = layer;
    this.shape = shape;
    this.latents = place.latents;
    this.entryBytes = place.entryBytes;
    this.keys = place.keys;
    this.pageBytes = place.pageBytes;
  }
}
