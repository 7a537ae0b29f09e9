/** Mixture of experts: the gate, and the routed experts as products over grouped rows. */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { checkExperts, checkGroups, checkRoutingRows } from '../checks.ts';
import { LargestExperts } from '../moe.ts';
import type { MoeOps, RouteOptions } from '../moe.ts';
import type { ExpertMatrices, Experts, Routing, Tensor, Vector } from '../shapes.ts';
import { Scratch } from './arena.ts';
import {
  CpuExperts,
  CpuMatrix,
  CpuRouting,
  asCpu,
  checkedTensor,
  checkedVector,
} from './handles.ts';
import type { CpuExpertMatrices, CpuTensor } from './handles.ts';
import { opCombine, opCopyRows, opRoute, opSiluMultiply } from './kernels/op-codes.ts';
import type { CpuGemm, Rows } from './gemm.ts';
import type { OpContext } from './op-context.ts';
import { f32 } from './thread-pool.ts';

/** Rows of the batch sorted by expert. */
interface Grouped {
  /** [experts + 1] where each expert's rows start. */
  readonly starts: Int32Array;
  readonly places: number;
}

export class CpuMoe implements MoeOps {
  readonly #context: OpContext;
  readonly #gemm: CpuGemm;
  readonly #sources: Scratch;
  readonly #places: Scratch;
  readonly #inputs: Scratch;
  readonly #inner: Scratch;
  readonly #outputs: Scratch;
  readonly #largest = new LargestExperts();

  constructor(context: OpContext, gemm: CpuGemm) {
    this.#context = context;
    this.#gemm = gemm;
    const scratch = (what: string) => new Scratch(context.arena, what);
    this.#sources = scratch("the experts' row numbers");
    this.#places = scratch("the rows' places among the experts");
    this.#inputs = scratch("the experts' inputs");
    this.#inner = scratch("the experts' inner activations");
    this.#outputs = scratch("the experts' outputs");
  }

  experts(handles: readonly ExpertMatrices[]): CpuExperts {
    const matrices = handles.map((handle): CpuExpertMatrices => ({
      gate: asCpu(CpuMatrix, handle.gate),
      up: asCpu(CpuMatrix, handle.up),
      down: asCpu(CpuMatrix, handle.down),
    }));
    const shape = checkExperts(handles);
    const isScaled = at(matrices, 0).gate.scaled;
    for (const { gate, up, down } of matrices) {
      const formats = [gate.scaled, up.scaled, down.scaled];
      assert(
        formats.every((scaled) => scaled === isScaled),
        `${gate.name}'s expert is not in the format of the others`,
      );
    }
    this.#largest.addExperts(shape, matrices.length);
    this.#reserve();
    return new CpuExperts(matrices, shape);
  }

  routing(rows: number, perToken: number): CpuRouting {
    const { arena } = this.#context;
    const bytes = rows * perToken * 4;
    this.#largest.addRouting(perToken);
    this.#reserve();
    return new CpuRouting(
      { rows, perToken },
      {
        experts: arena.allocate(bytes, 'activation', 'a routing'),
        weights: arena.allocate(bytes, 'activation', 'a routing'),
      },
    );
  }

  /**
   * Takes the scratch of a step as soon as both the experts and their number per token are known.
   */
  #reserve(): void {
    const { perToken, hidden, inner, experts } = this.#largest;
    const rows = this.#largest.slots(this.#context.step.rowsMax);
    if (rows === 0) return;
    this.#sources.at(rows * 4);
    this.#places.at(rows * 4);
    this.#inputs.at(rowsAt(0, rows, hidden).bytes);
    this.#inner.at(2 * rowsAt(0, rows, inner).bytes);
    this.#outputs.at(rowsAt(0, rows, hidden).bytes);
    this.#gemm.reserveGemms(experts + perToken);
    this.#gemm.reserveQuantized(rows, Math.max(hidden, inner));
  }

  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void {
    const { pool } = this.#context;
    const routing = asCpu(CpuRouting, out);
    const experts = logits.columns;
    const from = checkedTensor(logits, rows, experts);
    checkRoutingRows(routing, rows);
    const { groups, groupsKept } = options;
    checkGroups(experts, routing.perToken, options);
    const { rowsPerTask, tasks } = pool.share(rows, experts * 16);
    pool.run({
      op: opRoute,
      tasks,
      work: rows * experts * 16,
      arguments: [
        [rows, rowsPerTask, from.at, from.stride, experts, checkedVector(bias, experts).at],
        [groups, groupsKept, routing.perToken, options.normalize ? 1 : 0, f32(options.scale)],
        [routing.experts, routing.weights],
      ],
    });
  }

  forward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routed: Routing,
    handle: Experts,
    rows: number,
  ): void {
    const routing = asCpu(CpuRouting, routed);
    const experts = asCpu(CpuExperts, handle);
    const { hidden, inner } = experts;
    const from = checkedTensor(x, rows, hidden);
    const into = checkedTensor(out, rows, hidden);
    const added = checkedTensor(shared, rows, hidden);
    checkRoutingRows(routing, rows);

    const slots = rows * routing.perToken;
    const grouped = this.#group(routing, experts, rows);
    const input = this.#gathered(from, slots, experts);
    const gate = rowsAt(this.#inner.at(2 * rowsAt(0, slots, inner).bytes), slots, inner);
    const up = rowsAt(gate.at + gate.bytes, slots, inner);
    this.#perExpert(experts, 'gate', grouped, { input, out: gate });
    this.#perExpert(experts, 'up', grouped, { input, out: up });
    this.#activate(gate, up, slots, inner);
    const activated = this.#gemm.input(gate, at(experts.matrices, 0).down, slots);
    const down = rowsAt(this.#outputs.at(rowsAt(0, slots, hidden).bytes), slots, hidden);
    this.#perExpert(experts, 'down', grouped, { input: activated, out: down });
    this.#combine({ into, added, down, routing, places: grouped.places, rows });
  }

  /** Sorts the rows by expert, rows ascending within each; writes where each (row, choice) went. */
  #group(routing: CpuRouting, experts: CpuExperts, rows: number): Grouped {
    const { i32 } = this.#context.arena;
    const { perToken } = routing;
    const slots = rows * perToken;
    const chosen = i32.subarray(routing.experts / 4, routing.experts / 4 + slots);
    const starts = new Int32Array(experts.count + 1);
    for (const expert of chosen) {
      assert(expert >= 0 && expert < experts.count, `there is no expert ${expert}`);
      starts[expert + 1] = at(starts, expert + 1) + 1;
    }
    for (let e = 0; e < experts.count; e++) starts[e + 1] = at(starts, e + 1) + at(starts, e);
    const next = starts.slice();
    const places = this.#places.at(slots * 4);
    const sources = this.#sources.at(slots * 4);
    for (let slot = 0; slot < slots; slot++) {
      const expert = at(chosen, slot);
      const place = at(next, expert);
      next[expert] = place + 1;
      this.#context.arena.i32[places / 4 + slot] = place;
      this.#context.arena.i32[sources / 4 + place] = Math.floor(slot / perToken);
    }
    return { starts, places };
  }

  /** The rows in the experts' order, quantised if their weights want it. */
  #gathered(x: CpuTensor, slots: number, experts: CpuExperts): Rows {
    const { pool } = this.#context;
    const sources = this.#sources.at(slots * 4);
    const plain: Rows = { at: x.at, stride: x.stride, scales: 0, scaleStride: 0 };
    const { gate } = at(experts.matrices, 0);
    if (this.#gemm.quantizes(gate)) return this.#gemm.input(plain, gate, slots, sources);
    const place = rowsAt(
      this.#inputs.at(rowsAt(0, slots, experts.hidden).bytes),
      slots,
      experts.hidden,
    );
    const { rowsPerTask, tasks } = pool.share(slots, experts.hidden);
    pool.run({
      op: opCopyRows,
      tasks,
      work: slots * experts.hidden,
      arguments: [
        [slots, rowsPerTask, experts.hidden * 4, 1],
        [place.at, place.stride, 0, x.at, x.stride, 0, sources],
      ],
    });
    return place;
  }

  #perExpert(
    experts: CpuExperts,
    which: keyof CpuExpertMatrices,
    grouped: Grouped,
    rows: { input: Rows; out: Rows },
  ): void {
    const { input, out } = rows;
    const products = experts.matrices.map((matrices, expert) => {
      const start = at(grouped.starts, expert);
      return {
        matrix: matrices[which],
        rows: at(grouped.starts, expert + 1) - start,
        x: input.at + start * input.stride,
        xScales: input.scales === 0 ? 0 : input.scales + start * input.scaleStride,
        out: out.at + start * out.stride,
      };
    });
    const busy = products.filter((product) => product.rows > 0);
    this.#gemm.runAll(busy, input, { stride: out.stride, rounded: true });
  }

  #activate(gate: Rows, up: Rows, slots: number, inner: number): void {
    const { pool, round } = this.#context;
    const { rowsPerTask, tasks } = pool.share(slots, inner * 4);
    pool.run({
      op: opSiluMultiply,
      tasks,
      work: slots * inner * 4,
      arguments: [
        [slots, rowsPerTask, inner, gate.at, gate.stride],
        [gate.at, gate.stride, up.at, up.stride, round],
      ],
    });
  }

  #combine(call: {
    into: CpuTensor;
    added: CpuTensor;
    down: Rows;
    routing: CpuRouting;
    places: number;
    rows: number;
  }): void {
    const { pool, round } = this.#context;
    const { into, added, down, routing, rows } = call;
    const { rowsPerTask, tasks } = pool.share(rows, into.columns * routing.perToken);
    pool.run({
      op: opCombine,
      tasks,
      work: rows * into.columns * routing.perToken,
      arguments: [
        [rows, rowsPerTask, into.columns, into.at, into.stride, added.at, added.stride],
        [down.at, down.stride, call.places, routing.weights, routing.perToken, round],
      ],
    });
  }

  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const from = asCpu(CpuRouting, routing);
    checkRoutingRows(routing, rows);
    const { i32, f32: floats } = this.#context.arena;
    const count = rows * from.perToken;
    return {
      experts: i32.slice(from.experts / 4, from.experts / 4 + count),
      weights: floats.slice(from.weights / 4, from.weights / 4 + count),
    };
  }
}

/** Plain rows of `columns` floats at an address, and the bytes that they take. */
function rowsAt(start: number, rows: number, columns: number): Rows & { bytes: number } {
  const stride = Math.ceil(columns / 4) * 16;
  return { at: start, stride, scales: 0, scaleStride: 0, bytes: rows * stride };
}
