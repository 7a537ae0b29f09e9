/** One layer's attention on a backend under test: caches filled chunk by chunk, then every op. */
import type {
  CacheShape,
  LayerCache,
  Matrix,
  Selection,
  Tensor,
} from '../../../gpu-worker/backend/shapes.ts';
import type { Random } from '../random.ts';
import { batchOf, randomFloats, randomWeight } from './backends.ts';
import type { Part, Tested } from './backends.ts';

export interface AttentionShape {
  readonly heads: number;
  readonly latentDim: number;
  readonly ropeDim: number;
  readonly nopeDim: number;
  readonly valueDim: number;
  readonly indexHeads: number;
  readonly indexDim: number;
  readonly topK: number;
}

export const oddShape: AttentionShape = {
  heads: 5,
  latentDim: 37,
  ropeDim: 6,
  nopeDim: 9,
  valueDim: 11,
  indexHeads: 3,
  indexDim: 10,
  topK: 20,
};
export const wideShape: AttentionShape = {
  heads: 9,
  latentDim: 136,
  ropeDim: 8,
  nopeDim: 24,
  valueDim: 16,
  indexHeads: 4,
  indexDim: 32,
  topK: 100,
};
export const oneHeadShape: AttentionShape = { ...oddShape, heads: 1, indexHeads: 1, topK: 1 };

/** Everything that a sequence of so many tokens brings along, [tokens][columns] each. */
export interface SequenceInputs {
  readonly entries: Float32Array;
  readonly keys: Float32Array;
  readonly q: Float32Array;
  readonly absorbedQ: Float32Array;
  readonly indexQ: Float32Array;
  readonly indexWeights: Float32Array;
}

export function randomSequence(
  random: Random,
  shape: AttentionShape,
  tokens: number,
): SequenceInputs {
  const { heads, latentDim, ropeDim, nopeDim, indexHeads, indexDim } = shape;
  const of = (columns: number) => randomFloats(random, tokens * columns);
  return {
    entries: of(latentDim + ropeDim),
    keys: of(indexDim),
    q: of(heads * (nopeDim + ropeDim)),
    absorbedQ: of(heads * (latentDim + ropeDim)),
    indexQ: of(indexHeads * indexDim),
    // Some are negative, so index scores are too.
    indexWeights: of(indexHeads),
  };
}

/** A part of a batch and the sequence that it is of. */
export interface InputPart extends Part {
  readonly inputs: SequenceInputs;
}

/** The results of each row of a batch. */
export interface Attended {
  readonly selected: number[][];
  readonly sparse: Float32Array;
  readonly lse: Float32Array;
  readonly dense: Float32Array;
  readonly expandedSparse: Float32Array;
  readonly expandedDense: Float32Array;
}

export class AttentionCase {
  readonly tested: Tested;
  readonly cache: LayerCache;
  readonly #shape: AttentionShape;
  readonly #kvB: Matrix;
  readonly #selection: Selection;

  constructor(tested: Tested, shape: AttentionShape, random: Random, blocks: number) {
    this.tested = tested;
    this.#shape = shape;
    const { backend } = tested;
    const { latentDim, ropeDim, indexDim, heads, nopeDim, valueDim } = shape;
    const cacheShape: CacheShape = { layers: 1, blocks, latentDim, ropeDim, indexDim };
    const [cache] = backend.caches.make(cacheShape);
    if (cache === undefined) throw new Error('no cache was made');
    this.cache = cache;
    const outputs = heads * (nopeDim + valueDim);
    this.#kvB = backend.weights.matrix(
      randomWeight(random, { outputs, inputs: latentDim, dtype: 'F8_E4M3' }),
    );
    this.#selection = backend.indexer.selection(160, shape.topK);
  }

  /** Writes the parts' cache entries and computes their rows. */
  run(parts: readonly InputPart[]): Attended {
    const { backend, filled, poison } = this.tested;
    const { heads, latentDim, ropeDim, nopeDim, valueDim, indexHeads, indexDim } = this.#shape;
    const batch = batchOf(parts);
    const rows = batch.tokens.length;
    backend.batch.begin(batch);
    const rowsOf = (which: keyof SequenceInputs, columns: number): Tensor => {
      const values = parts.flatMap(({ start, rows: count, inputs }) => [
        ...inputs[which].subarray(start * columns, (start + count) * columns),
      ]);
      const precision = which === 'indexWeights' ? 'f32' : 'activation';
      return filled(Float32Array.from(values), columns, precision);
    };
    backend.caches.writeLatent(this.cache, rowsOf('entries', latentDim + ropeDim));
    backend.caches.writeIndexKeys(this.cache, rowsOf('keys', indexDim));
    const { cache } = this;
    const kvB = this.#kvB;
    const selection = this.#selection;
    const indexQ = rowsOf('indexQ', indexHeads * indexDim);
    const indexWeights = rowsOf('indexWeights', indexHeads);
    backend.indexer.selectTopK(selection, cache, indexQ, indexWeights, {
      heads: indexHeads,
      dim: indexDim,
    });

    const absorbedQ = rowsOf('absorbedQ', heads * (latentDim + ropeDim));
    const q = rowsOf('q', heads * (nopeDim + ropeDim));
    const out = backend.memory.tensor(rows, heads * latentDim);
    const lse = poison(backend.memory.tensor(rows, heads, 'f32'));
    const expanded = backend.memory.tensor(rows, heads * valueDim);
    const options = { heads, scale: 0.3 };
    const expandedOptions = { ...options, nopeDim, ropeDim, valueDim };
    const attend = (chosen: Selection | null) => {
      backend.attention.attend(poison(out), absorbedQ, cache, chosen, options, lse);
      return backend.memory.read(out, rows);
    };
    const attendExpanded = (chosen: Selection | null) => {
      backend.attention.attendExpanded(poison(expanded), q, cache, kvB, chosen, expandedOptions);
      return backend.memory.read(expanded, rows);
    };
    const dense = attend(null);
    const sparse = attend(selection);
    return {
      selected: backend.indexer.readSelection(selection, rows).map((row) => [...row]),
      dense,
      sparse,
      lse: backend.memory.read(lse, rows),
      expandedSparse: attendExpanded(selection),
      expandedDense: attendExpanded(null),
    };
  }
}

/** Rows [start, start + count) of what `run` returned. */
export function rowsOfAttended(all: Attended, start: number, count: number): Attended {
  const total = all.selected.length;
  const part = (values: Float32Array) => {
    const columns = values.length / total;
    return values.slice(start * columns, (start + count) * columns);
  };
  return {
    selected: all.selected.slice(start, start + count),
    sparse: part(all.sparse),
    lse: part(all.lse),
    dense: part(all.dense),
    expandedSparse: part(all.expandedSparse),
    expandedDense: part(all.expandedDense),
  };
}
