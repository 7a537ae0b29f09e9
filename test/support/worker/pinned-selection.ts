/**
 * The CPU backend with its choice among exactly equal index scores replaced by another: the
 * goldens' generator broke ties in its own way (test/goldens/README.md), and only so can its every
 * value be compared. All else is computed by the backend itself.
 */
import { strict as assert } from 'node:assert';
import { at } from '../../../gpu-worker/at.ts';
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import type { SelectOptions } from '../../../gpu-worker/backend/indexer.ts';
import type { LayerCache, Selection, Tensor } from '../../../gpu-worker/backend/shapes.ts';
import { CpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuSelection } from '../../../gpu-worker/backend/cpu/handles.ts';
import { CpuIndexer } from '../../../gpu-worker/backend/cpu/indexer.ts';
import type { OpContext } from '../../../gpu-worker/backend/cpu/op-context.ts';

/** [layer][position] the positions to attend to, ascending. */
export type Picks = readonly (readonly (readonly number[])[])[];

/** `picks` is asked at each selection, for a single sequence. */
export function withPinnedSelection(backend: Backend, picks: () => Picks): Backend {
  assert(backend instanceof CpuBackend, 'only the CPU backend can be pinned');
  const indexer = new PinnedIndexer(backend.context, picks);
  return { ...backend, indexer, close: () => backend.close() };
}

class PinnedIndexer extends CpuIndexer {
  readonly #context: OpContext;
  readonly #picks: () => Picks;

  constructor(context: OpContext, picks: () => Picks) {
    super(context);
    this.#context = context;
    this.#picks = picks;
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
    const { arena, step } = this.#context;
    const { positions } = step.batch;
    const rows = this.readSelection(out, positions.length);
    positions.forEach((position, row) => {
      const picked = at(at(this.#picks(), cache.layer), position);
      assert.equal(picked.length, at(rows, row).length, 'a pick has another size');
      arena.i32.set(picked, out.at / 4 + row * out.width);
    });
  }
}
