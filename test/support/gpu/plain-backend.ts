/**
 * Every op of the backend contract written the obvious way, one value at a time with float64 sums:
 * the slow twin that the tests hold the kernels against. It shares only the codecs with them.
 */
import assert from 'node:assert/strict';
import {
  type AbsorbedKv,
  type AttendOptions,
  type Backend,
  type Batch,
  blockTokens,
  type CacheShape,
  type ExpandedAttendOptions,
  type ExpertMatrices,
  type Experts,
  type HostTensor,
  type LayerCache,
  type Matrix,
  type MemoryUse,
  type Numerics,
  type RopeLayout,
  type RopeTable,
  type RotateOptions,
  type RouteOptions,
  type Routing,
  type Selection,
  type SelectOptions,
  type Tensor,
  type Vector,
} from '../../../gpu-worker/backend/backend.ts';
import { storeIndexKeys, storeLatent } from '../../../gpu-worker/backend/fused-ops.ts';
import type { Draw } from '../../../gpu-worker/backend/draw.ts';
import {
  decodeBf16,
  decodeE4m3,
  quantizeGroup,
  roundBf16,
  scaleGroup,
} from '../../../gpu-worker/backend/cpu/codecs.ts';

class PlainTensor implements Tensor {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
  readonly start: number;
  readonly stride: number;
  constructor(rows: number, columns: number, values: Float32Array, start: number, stride: number) {
    this.rows = rows;
    this.columns = columns;
    this.values = values;
    this.start = start;
    this.stride = stride;
  }
  get(row: number, column: number): number {
    return this.values[this.start + row * this.stride + column] ?? Number.NaN;
  }
  row(row: number): Float32Array {
    const from = this.start + row * this.stride;
    return this.values.subarray(from, from + this.columns);
  }
}

class PlainMatrix implements Matrix {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
  /** Decoded weights without their block scales, and the scales. */
  readonly values: Float32Array;
  readonly scales: Float32Array | null;
  constructor(source: HostTensor) {
    this.name = source.name;
    [this.outputs = 0, this.inputs = 0] = source.shape;
    this.scales = source.scales === null ? null : source.scales.slice();
    const view = new DataView(
      source.bytes.buffer,
      source.bytes.byteOffset,
      source.bytes.byteLength,
    );
    this.values = Float32Array.from({ length: this.outputs * this.inputs }, (_, i) => {
      if (source.dtype === 'F32') return view.getFloat32(i * 4, true);
      if (source.dtype === 'BF16') return decodeBf16(view.getUint16(i * 2, true));
      return decodeE4m3(view.getUint8(i));
    });
  }
  scale(output: number, group: number): number {
    const groups = Math.ceil(this.inputs / scaleGroup);
    return this.scales?.[Math.floor(output / scaleGroup) * groups + group] ?? 1;
  }
  raw(output: number, input: number): number {
    return this.values[output * this.inputs + input] ?? Number.NaN;
  }
  get(output: number, input: number): number {
    return Math.fround(
      this.raw(output, input) * this.scale(output, Math.floor(input / scaleGroup)),
    );
  }
}

interface PlainVector extends Vector {
  readonly values: Float32Array;
}

class PlainAbsorbedKv implements AbsorbedKv {
  readonly name: string;
  readonly heads: number;
  readonly nopeDim: number;
  readonly valueDim: number;
  readonly matrix: PlainMatrix;
  constructor(name: string, heads: number, nopeDim: number, valueDim: number, matrix: PlainMatrix) {
    this.name = name;
    this.heads = heads;
    this.nopeDim = nopeDim;
    this.valueDim = valueDim;
    this.matrix = matrix;
  }
}

class PlainExperts implements Experts {
  readonly count: number;
  readonly matrices: readonly ExpertMatrices[];
  constructor(matrices: readonly ExpertMatrices[]) {
    this.matrices = matrices;
    this.count = matrices.length;
  }
}

class PlainSelection implements Selection {
  chosen: Int32Array[] = [];
  readonly rows: number;
  readonly width: number;
  constructor(rows: number, width: number) {
    this.rows = rows;
    this.width = width;
  }
}

class PlainRouting implements Routing {
  readonly experts: Int32Array;
  readonly weights: Float32Array;
  readonly rows: number;
  readonly perToken: number;
  constructor(rows: number, perToken: number) {
    this.rows = rows;
    this.perToken = perToken;
    this.experts = new Int32Array(rows * perToken);
    this.weights = new Float32Array(rows * perToken);
  }
}

class PlainCache implements LayerCache {
  /** What a reader sees of each slot, after the format's rounding. */
  readonly latents: Float32Array;
  readonly keys: Float32Array;
  readonly keyScales: Float32Array;
  readonly layer: number;
  readonly shape: CacheShape;
  constructor(layer: number, shape: CacheShape) {
    this.layer = layer;
    this.shape = shape;
    const slots = shape.blocks * blockTokens;
    this.latents = new Float32Array(slots * (shape.latentDim + shape.ropeDim));
    this.keys = new Float32Array(slots * shape.indexDim);
    this.keyScales = new Float32Array(slots);
  }
  latent(slot: number): Float32Array {
    const width = this.shape.latentDim + this.shape.ropeDim;
    return this.latents.subarray(slot * width, (slot + 1) * width);
  }
  key(slot: number): Float32Array {
    return this.keys.subarray(slot * this.shape.indexDim, (slot + 1) * this.shape.indexDim);
  }
}

/** Narrows what the caller passes back to what this backend made. */
function asPlain<T>(kind: abstract new (...args: never[]) => T, value: unknown): T {
  assert(value instanceof kind, `the ${kind.name} was not made by this backend`);
  return value;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}

function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

export class PlainBackend implements Backend {
  readonly name = 'cpu' as const;
  readonly hostMemory = null;
  readonly numerics: Numerics;
  private batch: Batch | null = null;
  private rope: RopeTable | null = null;
  private readonly vectors = new WeakMap<Vector, Float32Array>();

  constructor(numerics: Numerics) {
    this.numerics = numerics;
  }

  // ---- made at start -----------------------------------------------------------------------

  matrix(source: HostTensor): Matrix {
    return new PlainMatrix(source);
  }
  vector(name: string, values: Float32Array): Vector {
    const vector: PlainVector = { name, length: values.length, values: values.slice() };
    this.vectors.set(vector, vector.values);
    return vector;
  }
  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): AbsorbedKv {
    const matrix = new PlainMatrix(source);
    return new PlainAbsorbedKv(source.name, shape.heads, shape.nopeDim, shape.valueDim, matrix);
  }
  wholeKv(source: HostTensor): Matrix {
    return this.matrix(source);
  }
  expandsFaster(): boolean {
    return false;
  }
  experts(matrices: readonly ExpertMatrices[]): Experts {
    return new PlainExperts(matrices);
  }
  ropeTable(table: RopeTable): void {
    this.rope = table;
  }
  tensor(rows: number, columns: number): Tensor {
    return new PlainTensor(rows, columns, new Float32Array(rows * columns), 0, columns);
  }
  columns(of: Tensor, start: number, count: number): Tensor {
    const tensor = asPlain(PlainTensor, of);
    assert(start + count <= tensor.columns, 'a view reaches past its tensor');
    return new PlainTensor(of.rows, count, tensor.values, tensor.start + start, tensor.stride);
  }
  selection(rows: number, width: number): Selection {
    return new PlainSelection(rows, width);
  }
  routing(rows: number, perToken: number): Routing {
    return new PlainRouting(rows, perToken);
  }
  blockBytes(shape: Omit<CacheShape, 'blocks'>): number {
    const { latentDim, ropeDim, indexDim } = shape;
    const groups = Math.ceil(latentDim / scaleGroup);
    const latent = {
      f32: Math.ceil((latentDim + ropeDim) / 4) * 16,
      bf16: (latentDim + ropeDim) * 2,
      fp8: latentDim + groups * 4 + ropeDim * 2,
    }[this.numerics.latentCache];
    const keyBytes = this.numerics.indexKeys === 'fp8' ? indexDim + 4 : indexDim * 4;
    return shape.layers * blockTokens * (latent + (indexDim === 0 ? 0 : keyBytes));
  }
  caches(shape: CacheShape): readonly LayerCache[] {
    return Array.from({ length: shape.layers }, (_, layer) => new PlainCache(layer, shape));
  }
  memory(): MemoryUse {
    const none = { weightBytes: 0, activationBytes: 0, cacheBytes: 0, reservedBytes: 0 };
    return { ...none, limitBytes: 4 * 2 ** 30 };
  }

  // ---- one step ----------------------------------------------------------------------------

  beginStep(batch: Batch): void {
    this.batch = batch;
  }
  private step(): Batch {
    assert(this.batch !== null, 'an op that reads the batch ran before beginStep');
    return this.batch;
  }
  private values(vector: Vector): Float32Array {
    const values = this.vectors.get(vector);
    assert(values !== undefined, 'the vector was not made by this backend');
    return values;
  }
  private round(value: number): number {
    return this.numerics.activations === 'bf16' ? roundBf16(value) : value;
  }
  /** Slot of each position of the row's sequence up to the row's own. */
  private slots(row: number): number[] {
    const { positions, sequences, blockTables } = this.step();
    const table = blockTables[sequences[row] ?? -1] ?? new Int32Array(0);
    return Array.from({ length: (positions[row] ?? 0) + 1 }, (_, position) => {
      const block = table[Math.floor(position / blockTokens)];
      assert(block !== undefined, 'the block table is shorter than the sequence');
      return block * blockTokens + (position % blockTokens);
    });
  }

  freezeMemory(): void {}
  captureOrReplay(_key: number, ops: () => void): void {
    ops();
  }
  embed(out: Tensor, table: Matrix): void {
    const matrix = asPlain(PlainMatrix, table);
    const { tokens } = this.step();
    for (const [r, token] of tokens.entries()) {
      asPlain(PlainTensor, out)
        .row(r)
        .forEach((_, c, row) => (row[c] = this.round(matrix.get(token, c))));
    }
  }

  private normalize(out: Float32Array, x: number[], weight: Float32Array, epsilon: number): void {
    const scale = 1 / Math.sqrt(dot(x, x) / x.length + epsilon);
    for (const [c, value] of x.entries()) out[c] = this.round(value * scale * (weight[c] ?? 0));
  }
  rmsNorm(
    out: Tensor,
    x: Tensor,
    weight: Vector,
    options: { rows: number; epsilon: number },
  ): void {
    for (let r = 0; r < options.rows; r++) {
      const values = [...asPlain(PlainTensor, x).row(r)];
      this.normalize(
        asPlain(PlainTensor, out).row(r),
        values,
        this.values(weight),
        options.epsilon,
      );
    }
  }
  addRmsNorm(
    out: Tensor,
    residual: Tensor,
    x: Tensor,
    weight: Vector,
    options: { rows: number; epsilon: number },
  ): void {
    for (let r = 0; r < options.rows; r++) {
      const carried = asPlain(PlainTensor, residual).row(r);
      const added = asPlain(PlainTensor, x).row(r);
      const sum = Array.from(carried, (value, c) => Math.fround(value + (added[c] ?? 0)));
      sum.forEach((value, c) => (carried[c] = this.round(value)));
      this.normalize(asPlain(PlainTensor, out).row(r), sum, this.values(weight), options.epsilon);
    }
  }
  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: { rows: number; epsilon: number },
  ): void {
    const weight = this.values(norm.weight);
    const bias = this.values(norm.bias);
    for (let r = 0; r < options.rows; r++) {
      const values = [...asPlain(PlainTensor, x).row(r)];
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const centred = values.map((value) => value - mean);
      const scale = 1 / Math.sqrt(dot(centred, centred) / values.length + options.epsilon);
      asPlain(PlainTensor, out)
        .row(r)
        .forEach((_, c, row) => {
          row[c] = this.round((centred[c] ?? 0) * scale * (weight[c] ?? 0) + (bias[c] ?? 0));
        });
    }
  }
  add(residual: Tensor, x: Tensor, rows: number): void {
    for (let r = 0; r < rows; r++) {
      const added = asPlain(PlainTensor, x).row(r);
      const row = asPlain(PlainTensor, residual).row(r);
      row.forEach((value, c) => (row[c] = this.round(Math.fround(value + (added[c] ?? 0)))));
    }
  }

  /** One row through a weight: quantised and rounded as a linear op is. */
  private linearRow(x: Float32Array, matrix: PlainMatrix): Float32Array {
    const quantized = matrix.scales !== null && this.numerics.quantizedLinear;
    const codes = new Uint8Array(x.length);
    const out = new Float64Array(matrix.outputs);
    for (let start = 0; start < x.length; start += scaleGroup) {
      const end = Math.min(start + scaleGroup, x.length);
      const scale = quantized
        ? quantizeGroup(x, codes, { start, end }, this.numerics.scaleFormat)
        : 1;
      const input = quantized
        ? Float32Array.from(codes.subarray(start, end), decodeE4m3)
        : x.subarray(start, end);
      for (let o = 0; o < matrix.outputs; o++) {
        let sum = 0;
        for (let i = start; i < end; i++) sum += (input[i - start] ?? 0) * matrix.raw(o, i);
        out[o] = (out[o] ?? 0) + sum * scale * matrix.scale(o, start / scaleGroup);
      }
    }
    return Float32Array.from(out, (value) => this.round(value));
  }
  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    const matrix = asPlain(PlainMatrix, weight);
    for (let r = 0; r < rows; r++) {
      asPlain(PlainTensor, out)
        .row(r)
        .set(this.linearRow(asPlain(PlainTensor, x).row(r), matrix));
    }
  }
  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    const matrix = asPlain(PlainMatrix, weight);
    for (let r = 0; r < rows; r++) {
      const input = asPlain(PlainTensor, x).row(r);
      const row = asPlain(PlainTensor, out).row(r);
      for (let o = 0; o < matrix.outputs; o++) {
        let sum = 0;
        for (let i = 0; i < matrix.inputs; i++) sum += (input[i] ?? 0) * matrix.get(o, i);
        row[o] = sum;
      }
    }
  }

  rotate(x: Tensor, options: RotateOptions): void {
    const table = this.rope;
    assert(table !== null, 'rotate ran before ropeTable');
    const half = table.dim / 2;
    const { positions } = this.step();
    for (let r = 0; r < options.rows; r++) {
      const row = asPlain(PlainTensor, x).row(r);
      for (let h = 0; h < options.heads; h++) {
        const start = (h * row.length) / options.heads + options.start;
        for (let i = 0; i < half; i++) {
          const first = start + (options.layout === 'half' ? i : 2 * i);
          const second = options.layout === 'half' ? first + half : first + 1;
          const cos = table.cos[(positions[r] ?? 0) * half + i] ?? Number.NaN;
          const sin = table.sin[(positions[r] ?? 0) * half + i] ?? Number.NaN;
          const [a, b] = [row[first] ?? 0, row[second] ?? 0];
          row[first] = this.round(a * cos - b * sin);
          row[second] = this.round(a * sin + b * cos);
        }
      }
    }
    if (options.transform === true) this.hadamard(x, options);
  }
  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    for (let r = 0; r < options.rows; r++) {
      const row = asPlain(PlainTensor, x).row(r);
      const dim = row.length / options.heads;
      for (let h = 0; h < options.heads; h++) {
        const part = row.slice(h * dim, (h + 1) * dim);
        for (let i = 0; i < dim; i++) {
          let sum = 0;
          // Sylvester's entry (i, j) is -1 to the number of bits that i and j share.
          for (let j = 0; j < dim; j++) {
            const shared = (i & j).toString(2).replaceAll('0', '').length;
            sum += (part[j] ?? 0) * (shared % 2 === 0 ? 1 : -1);
          }
          row[h * dim + i] = this.round(sum / Math.sqrt(dim));
        }
      }
    }
  }
  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    for (let r = 0; r < rows; r++) {
      const gates = asPlain(PlainTensor, gate).row(r).slice();
      const ups = asPlain(PlainTensor, up).row(r);
      const row = asPlain(PlainTensor, out).row(r);
      gates.forEach((value, c) => (row[c] = this.round(silu(value) * (ups[c] ?? 0))));
    }
  }
  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    rowIndices.forEach((from, r) =>
      asPlain(PlainTensor, out).row(r).set(asPlain(PlainTensor, x).row(from)),
    );
  }

  writeLatent(cache: LayerCache, entries: Tensor): void {
    const into = asPlain(PlainCache, cache);
    const { latentDim } = into.shape;
    for (const [r, slot] of this.step().slots.entries()) {
      const source = asPlain(PlainTensor, entries).row(r);
      const entry = into.latent(slot);
      if (this.numerics.latentCache === 'f32') {
        entry.set(source);
        continue;
      }
      source.forEach((value, c) => (entry[c] = roundBf16(value)));
      if (this.numerics.latentCache === 'bf16') continue;
      const codes = new Uint8Array(latentDim);
      for (let start = 0; start < latentDim; start += scaleGroup) {
        const end = Math.min(start + scaleGroup, latentDim);
        const scale = quantizeGroup(source, codes, { start, end }, 'ue8m0');
        for (let i = start; i < end; i++) entry[i] = decodeE4m3(codes[i] ?? 0) * scale;
      }
    }
  }
  /** A query or key of the indexer after the format's rounding, without its scale. */
  private indexVector(source: Float32Array): { values: Float32Array; scale: number } {
    if (this.numerics.indexKeys === 'f32') return { values: source, scale: 1 };
    const codes = new Uint8Array(source.length);
    const range = { start: 0, end: source.length };
    const scale = quantizeGroup(source, codes, range, 'ue8m0');
    return { values: Float32Array.from(codes, decodeE4m3), scale };
  }
  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    const into = asPlain(PlainCache, cache);
    for (const [r, slot] of this.step().slots.entries()) {
      const { values, scale } = this.indexVector(asPlain(PlainTensor, keys).row(r));
      into.key(slot).set(values);
      into.keyScales[slot] = scale;
    }
  }
  storeLatent(cache: LayerCache, entries: Tensor, norm: { weight: Vector; epsilon: number }): void {
    storeLatent(this, cache, entries, { ...norm, rows: this.step().slots.length });
  }
  storeIndexKeys(
    cache: LayerCache,
    keys: Tensor,
    norm: { weight: Vector; bias: Vector; epsilon: number },
    rotation: { layout: RopeLayout; transform: boolean },
  ): void {
    storeIndexKeys(this, cache, keys, { ...norm, rows: this.step().slots.length }, rotation);
  }
  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    const chosen = asPlain(PlainSelection, out);
    chosen.chosen = Array.from(this.step().positions, (position, r) => {
      const scores =
        position < out.width
          ? new Float32Array(position + 1)
          : this.indexScores(r, asPlain(PlainCache, cache), { queries, weights, options });
      const order = [...scores.keys()];
      order.sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
      return Int32Array.from(order.slice(0, out.width)).toSorted();
    });
  }
  /** I(t, s) of one row for all the tokens that it sees. */
  private indexScores(
    row: number,
    cache: PlainCache,
    inputs: { queries: Tensor; weights: Tensor; options: SelectOptions },
  ): Float32Array {
    const { heads, dim } = inputs.options;
    const query = asPlain(PlainTensor, inputs.queries).row(row);
    const parts = Array.from({ length: heads }, (_, h) =>
      this.indexVector(query.slice(h * dim, (h + 1) * dim)),
    );
    const weights = asPlain(PlainTensor, inputs.weights).row(row);
    return Float32Array.from(this.slots(row), (slot) => {
      let sum = 0;
      for (const [h, part] of parts.entries()) {
        const weight = ((weights[h] ?? 0) * part.scale) / Math.sqrt(heads * dim);
        sum += weight * Math.max(0, dot(part.values, cache.key(slot)));
      }
      return sum * (this.numerics.indexKeys === 'fp8' ? (cache.keyScales[slot] ?? 0) : 1);
    });
  }

  /** kv_b seen as [head][nope, then value][latent], as absorption reads it. */
  private absorbed(kv: PlainAbsorbedKv, head: number, row: number, latent: number): number {
    const weight = kv.matrix.get(head * (kv.nopeDim + kv.valueDim) + row, latent);
    return kv.matrix.scales === null ? weight : this.round(weight);
  }
  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void {
    const absorbed = asPlain(PlainAbsorbedKv, kv);
    const latentDim = absorbed.matrix.inputs;
    const ropeDim = q.columns / kv.heads - absorbed.nopeDim;
    for (let r = 0; r < rows; r++) {
      for (let h = 0; h < kv.heads; h++) {
        const from = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * (absorbed.nopeDim + ropeDim));
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * (latentDim + ropeDim));
        for (let l = 0; l < latentDim; l++) {
          let sum = 0;
          for (let n = 0; n < absorbed.nopeDim; n++) {
            sum += (from[n] ?? 0) * this.absorbed(absorbed, h, n, l);
          }
          into[l] = this.round(sum);
        }
        for (let i = 0; i < ropeDim; i++) into[latentDim + i] = from[absorbed.nopeDim + i] ?? 0;
      }
    }
  }
  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void {
    const absorbed = asPlain(PlainAbsorbedKv, kv);
    const latentDim = absorbed.matrix.inputs;
    for (let r = 0; r < rows; r++) {
      const row = asPlain(PlainTensor, out).row(r);
      row.forEach((_, c) => {
        const head = Math.floor(c / absorbed.valueDim);
        let sum = 0;
        for (let l = 0; l < latentDim; l++) {
          const weight = this.absorbed(
            absorbed,
            head,
            absorbed.nopeDim + (c % absorbed.valueDim),
            l,
          );
          sum += asPlain(PlainTensor, latent).get(r, head * latentDim + l) * weight;
        }
        row[c] = this.round(sum);
      });
    }
  }

  /** Positions that a row attends to. */
  private attended(row: number, selection: Selection | null): Int32Array {
    const all = Int32Array.from(this.slots(row).keys());
    if (selection === null) return all;
    return asPlain(PlainSelection, selection).chosen[row] ?? new Int32Array(0);
  }
  /** softmax(scale * q . keys) and the values' mean under it. */
  private attendHead(
    q: Float32Array,
    keys: Float32Array[],
    values: Float32Array[],
    scale: number,
  ): { out: Float64Array; lse: number } {
    const scores = keys.map((key) => scale * dot(q, key));
    const max = Math.max(...scores);
    const probabilities = scores.map((score) => Math.exp(score - max));
    const total = probabilities.reduce((sum, p) => sum + p, 0);
    const out = new Float64Array(values[0]?.length ?? 0);
    for (const [i, value] of values.entries()) {
      value.forEach((v, c) => (out[c] = (out[c] ?? 0) + (v * (probabilities[i] ?? 0)) / total));
    }
    return { out, lse: max + Math.log(total) };
  }
  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void {
    const from = asPlain(PlainCache, cache);
    const { latentDim } = from.shape;
    const width = latentDim + from.shape.ropeDim;
    for (let r = 0; r < this.step().tokens.length; r++) {
      const slots = this.slots(r);
      const keys = Array.from(this.attended(r, selection), (p) => from.latent(slots[p] ?? -1));
      const values = keys.map((key) => key.subarray(0, latentDim));
      for (let h = 0; h < options.heads; h++) {
        const query = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * width, (h + 1) * width);
        const head = this.attendHead(query, keys, values, options.scale);
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * latentDim);
        head.out.forEach((value, c) => (into[c] = this.round(value)));
        if (lse !== undefined) asPlain(PlainTensor, lse).row(r)[h] = head.lse;
      }
    }
  }
  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    const from = asPlain(PlainCache, cache);
    const { latentDim } = from.shape;
    const { nopeDim, ropeDim, valueDim } = options;
    const expandedBySlot = new Map<number, Float32Array>();
    for (let r = 0; r < this.step().tokens.length; r++) {
      const slots = this.slots(r);
      const chosen = Array.from(this.attended(r, selection), (p) => slots[p] ?? -1);
      const entries = chosen.map((slot) => from.latent(slot));
      const expanded = chosen.map((slot) => {
        const known = expandedBySlot.get(slot);
        if (known !== undefined) return known;
        const latent = from.latent(slot).slice(0, latentDim);
        const fresh = this.linearRow(latent, asPlain(PlainMatrix, kvB));
        expandedBySlot.set(slot, fresh);
        return fresh;
      });
      for (let h = 0; h < options.heads; h++) {
        const start = h * (nopeDim + valueDim);
        const keys = expanded.map((kv, i) =>
          Float32Array.of(
            ...kv.subarray(start, start + nopeDim),
            ...(entries[i]?.subarray(latentDim) ?? []),
          ),
        );
        const values = expanded.map((kv) =>
          kv.subarray(start + nopeDim, start + nopeDim + valueDim),
        );
        const query = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * (nopeDim + ropeDim));
        const head = this.attendHead(
          query.subarray(0, nopeDim + ropeDim),
          keys,
          values,
          options.scale,
        );
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * valueDim);
        head.out.forEach((value, c) => (into[c] = this.round(value)));
      }
    }
  }

  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void {
    const routing = asPlain(PlainRouting, out);
    const { perToken } = routing;
    const biases = this.values(bias);
    for (let r = 0; r < rows; r++) {
      const scores = Float32Array.from(
        asPlain(PlainTensor, logits).row(r),
        (logit) => 1 / (1 + Math.exp(-logit)),
      );
      const biased = scores.map((score, e) => score + (biases[e] ?? 0));
      const size = scores.length / options.groups;
      const groupScores = Float32Array.from({ length: options.groups }, (_, g) => {
        const best = biased.slice(g * size, (g + 1) * size).toSorted((a, b) => b - a);
        return (best[0] ?? 0) + (best[1] ?? 0);
      });
      const kept = [...groupScores.keys()]
        .toSorted((a, b) => (groupScores[b] ?? 0) - (groupScores[a] ?? 0) || a - b)
        .slice(0, options.groupsKept);
      const chosen = [...biased.keys()]
        .filter((e) => kept.includes(Math.floor(e / size)))
        .toSorted((a, b) => (biased[b] ?? 0) - (biased[a] ?? 0) || a - b)
        .slice(0, perToken);
      const total = chosen.reduce((sum, e) => sum + (scores[e] ?? 0), 1e-20);
      for (const [i, e] of chosen.entries()) {
        const weight = (scores[e] ?? 0) / (options.normalize ? total : 1);
        routing.experts[r * perToken + i] = e;
        routing.weights[r * perToken + i] = weight * options.scale;
      }
    }
  }
  moeForward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routing: Routing,
    experts: Experts,
    rows: number,
  ): void {
    const { perToken, experts: chosen, weights } = asPlain(PlainRouting, routing);
    const { matrices } = asPlain(PlainExperts, experts);
    for (let r = 0; r < rows; r++) {
      const input = asPlain(PlainTensor, x).row(r);
      const sum = Float64Array.from(asPlain(PlainTensor, shared).row(r));
      for (let i = 0; i < perToken; i++) {
        const expert = matrices[chosen[r * perToken + i] ?? -1];
        assert(expert !== undefined, 'the routing names an expert that there is not');
        const gate = this.linearRow(input, asPlain(PlainMatrix, expert.gate));
        const up = this.linearRow(input, asPlain(PlainMatrix, expert.up));
        const inner = gate.map((value, c) => this.round(silu(value) * (up[c] ?? 0)));
        const down = this.linearRow(inner, asPlain(PlainMatrix, expert.down));
        const weight = weights[r * perToken + i] ?? 0;
        down.forEach((value, c) => (sum[c] = (sum[c] ?? 0) + weight * value));
      }
      sum.forEach((value, c) => (asPlain(PlainTensor, out).row(r)[c] = this.round(value)));
    }
  }

  /** Sets the first rows, for tests. */
  fill(tensor: Tensor, values: Float32Array): void {
    const into = asPlain(PlainTensor, tensor);
    for (let r = 0; r < values.length / into.columns; r++) {
      into.row(r).set(values.subarray(r * into.columns, (r + 1) * into.columns));
    }
  }

  // ---- results -----------------------------------------------------------------------------

  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[] {
    return draws.map((draw, r) => sampleRow([...asPlain(PlainTensor, logits).row(r)], draw));
  }
  read(x: Tensor, rows: number): Float32Array {
    const out = new Float32Array(rows * x.columns);
    for (let r = 0; r < rows; r++) out.set(asPlain(PlainTensor, x).row(r), r * x.columns);
    return out;
  }
  readSelection(selection: Selection, rows: number): Int32Array[] {
    return asPlain(PlainSelection, selection).chosen.slice(0, rows);
  }
  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const { perToken, experts, weights } = asPlain(PlainRouting, routing);
    return {
      experts: experts.slice(0, rows * perToken),
      weights: weights.slice(0, rows * perToken),
    };
  }
  async close(): Promise<void> {}
}

/** Sorts, cuts, sorts back and walks. */
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
