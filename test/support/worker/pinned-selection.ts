/**
 * The CPU backend with its choice among exactly equal index scores replaced by another: the
 * goldens' generator broke ties in its own way (test/goldens/README.md), and only so can its every
 * value be compared. All else is computed by the backend itself.
 */
import assert from 'node:assert/strict';
import type {
  Backend,
  Batch,
  LayerCache,
  Selection,
  SelectOptions,
  Tensor,
} from '../../../gpu-worker/backend/backend.ts';
import { CpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuSelection } from '../../../gpu-worker/backend/cpu/handles.ts';

/** [layer][position] the positions to attend to, ascending. */
export type Picks = readonly (readonly (readonly number[])[])[];

/** `picks` is asked at each selection, for a single sequence. */
export function withPinnedSelection(backend: Backend, picks: () => Picks): Backend {
  assert(backend instanceof CpuBackend, 'only the CPU backend can be pinned');
  return new PinnedBackend(backend, picks);
}

class PinnedBackend extends CpuBackend {
  readonly #picks: () => Picks;
  #positions: Int32Array = new Int32Array();

  constructor(backend: CpuBackend, picks: () => Picks) {
    super(backend.context);
    this.#picks = picks;
  }

  override beginStep(batch: Batch): void {
    super.beginStep(batch);
    this.#positions = batch.positions;
  }

  override selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    super.selectTopK(out, cache, queries, weights, options);
    assert(out instanceof CpuSelection);
    const rows = this.readSelection(out, this.#positions.length);
    this.#positions.forEach((position, row) => {
      const picked = this.#picks()[cache.layer][position];
      assert.equal(picked.length, rows[row].length, 'a pick has another size');
      this.context.arena.i32.set(picked, out.at / 4 + row * out.width);
    });
  }
}
