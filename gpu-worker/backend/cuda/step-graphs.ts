/**
 * CUDA graphs of whole steps. A step's launches depend on its batch only through the guards that
 * its ops record (step.ts): a step for which all guards of an earlier one hold has the same
 * launches to the last argument, since all else lies in device memory. The second such step is
 * captured as a CUDA graph; from the third on the ops are not even called, and one call of the
 * driver launches all of the step's kernels.
 */
import type { Batch, BatchOps } from '../batch.ts';
import type { OpDevice } from './op-device.ts';
import type { Graph } from './runtime/launch-queue.ts';
import type { CudaStep, Guards } from './step.ts';

/** Steps of equal rows that are remembered; the oldest goes first. */
const perRowsMax = 8;
/** Graphs that are kept in all; the one launched longest ago goes first. */
export const graphsMax = 64;

interface Known {
  readonly ops: () => void;
  readonly guards: Guards;
  graph: Graph | null;
}

export class StepGraphs implements BatchOps {
  readonly #device: OpDevice;
  readonly #step: CudaStep;
  readonly #byRows = new Map<number, Known[]>();
  /** Shapes that have a graph, in the order of their last launch. */
  readonly #withGraph = new Set<Known>();

  constructor(device: OpDevice, step: CudaStep) {
    this.#device = device;
    this.#step = step;
  }

  begin(batch: Batch): void {
    this.#step.begin(batch);
  }

  /**
   * Runs `ops`, or replays the graph of the launches that they made for a batch of which all
   * recorded guards hold.
   */
  captureOrReplay(ops: () => void): void {
    const { queue } = this.#device;
    queue.flush();
    if (!queue.usesGraphs) return ops();
    const rows = this.#step.batch.tokens.length;
    const knownOfRows = this.#byRows.get(rows) ?? [];
    const known = knownOfRows.find(
      (each) => each.ops === ops && this.#step.guardsHold(each.guards),
    );
    if (known?.graph) {
      this.#launch(known, known.graph);
      return;
    }
    const trafficBefore = this.#device.traffic;
    const guards = this.#step.recordGuards(ops);
    // Copies between the launches can't be repeated, nor can what looked at the batch itself.
    if (guards === null || this.#device.traffic !== trafficBefore) return queue.flush();
    if (known === undefined) {
      if (knownOfRows.length >= perRowsMax) this.#forget(knownOfRows.shift());
      knownOfRows.push({ ops, guards, graph: null });
      this.#byRows.set(rows, knownOfRows);
      queue.flush();
      return;
    }
    const graph = queue.capture();
    if (graph === null) return;
    const [oldest] = this.#withGraph;
    if (this.#withGraph.size >= graphsMax) this.#forget(oldest);
    known.graph = graph;
    this.#launch(known, graph);
  }

  #launch(known: Known, graph: Graph): void {
    this.#withGraph.delete(known);
    this.#withGraph.add(known);
    this.#device.queue.launch(graph);
  }

  #forget(known: Known | undefined): void {
    if (known?.graph) this.#device.queue.destroy(known.graph);
    if (known === undefined) return;
    known.graph = null;
    this.#withGraph.delete(known);
  }
}
