/**
 * Steps that are run again as they are. What a step's ops launch depends on its batch only through
 * what they ask of it (step.ts): a step whose answers are all those of an earlier one has the same
 * launches to the last argument, since all else lies in device memory. The second such step is
 * captured as a CUDA graph; from the third on the ops are not even called, and the whole of a step's
 * launches is one call of the driver.
 */
import type { Device } from './runtime/device.ts';
import type { Graph } from './runtime/launch-queue.ts';
import type { Answers, Step } from './step.ts';

/** Steps of equal rows that are remembered; the oldest goes first. */
const perRowsMax = 8;
/** Graphs that are kept in all; the one launched longest ago goes first. */
export const graphsMax = 64;

interface Known {
  readonly variant: number;
  readonly ops: () => void;
  readonly answers: Answers;
  graph: Graph | null;
}

export class Repeats {
  readonly #device: Device;
  readonly #step: Step;
  readonly #byRows = new Map<number, Known[]>();
  /** In the order of their last launch. */
  readonly #withGraph = new Set<Known>();

  constructor(device: Device, step: Step) {
    this.#device = device;
    this.#step = step;
  }

  /** Runs `ops`, or what they came to when a batch like the current one was run before. */
  run(variant: number, ops: () => void): void {
    const { queue } = this.#device;
    queue.flush();
    if (!queue.usesGraphs) return ops();
    const rows = this.#step.batch.tokens.length;
    const knownOfRows = this.#byRows.get(rows) ?? [];
    const known = knownOfRows.find(
      (each) =>
        each.ops === ops && each.variant === variant && this.#step.answersAlike(each.answers),
    );
    if (known?.graph) {
      this.#launch(known, known.graph);
      return;
    }
    const trafficBefore = this.#device.traffic;
    const answers = this.#step.watch(ops);
    // Copies between the launches can't be repeated, nor can what looked at the batch itself.
    if (answers === null || this.#device.traffic !== trafficBefore) return queue.flush();
    if (known === undefined) {
      if (knownOfRows.length >= perRowsMax) this.#forget(knownOfRows.shift());
      knownOfRows.push({ variant, ops, answers, graph: null });
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
