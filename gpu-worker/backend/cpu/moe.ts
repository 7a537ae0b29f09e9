/** Mixture of experts: the gate, and the routed experts as products over grouped rows. */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { checkExperts, checkGroups, checkRoutingRows } from '../checks.ts';
import { LargestExperts } from '../moe.ts';
import type { MoeOps, RouteOptions } from '../moe.ts';
import type { ExpertMatrices, Experts, Routing, Tensor, Vector } from '../shapes.ts';
import { Scratch } from './arena.ts';
import { ExpertExchange } from './expert-exchange.ts';
import type { RoutedRows } from './expert-exchange.ts';
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

/** The first of some rows in the arena, and the bytes from a row to the next. */
type Place = Pick<Rows, 'at' | 'stride'>;

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
  readonly #arrived: Scratch;
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
    this.#arrived = scratch('rows of other ranks');
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
    const own = this.#largest.slots(this.#context.step.rowsMax);
    if (own === 0) return;
    const arriving = this.#arrivingMax();
    if (arriving > 0) this.#arrived.at(rowsAt(0, arriving, hidden).bytes);
    const rows = Math.max(own, arriving);
    this.#sources.at(rows * 4);
    this.#places.at(rows * 4);
    this.#inputs.at(rowsAt(0, rows, hidden).bytes);
    this.#inner.at(2 * rowsAt(0, rows, inner).bytes);
    this.#outputs.at(rowsAt(0, rows, hidden).bytes);
    this.#gemm.reserveGemms(experts + perToken);
    this.#gemm.reserveQuantized(rows, Math.max(hidden, inner));
  }

  /** Rows that all groups may send at most to the experts that a rank has; 0 without others. */
  #arrivingMax(): number {
    const { step, ranks } = this.#context;
    if (ranks === null) return 0;
    const { perToken, experts } = this.#largest;
    const groups = ranks.experts.size / ranks.heads.size;
    return groups * step.rowsMax * Math.min(perToken, experts);
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
    const { hidden } = experts;
    const from = checkedTensor(x, rows, hidden);
    const into = checkedTensor(out, rows, hidden);
    const added = checkedTensor(shared, rows, hidden);
    checkRoutingRows(routing, rows);
    const slots = rows * routing.perToken;
    const start = routing.experts / 4;
    const chosen = this.#context.arena.i32.slice(start, start + slots);
    const { ranks } = this.#context;
    if (ranks !== null && ranks.experts.size > 1) {
      const rowOf = (row: number): Float32Array =>
        this.#floats(from.at + row * from.stride, hidden);
      const computed = this.#overRanks({ rows, hidden, chosen, rowOf }, experts);
      this.#combine({ into, added, routing, rows, ...computed });
      return;
    }
    const grouped = this.#group(chosen, routing.perToken, experts.count);
    const down = this.#compute(from, slots, grouped, experts);
    this.#combine({ into, added, down, routing, places: grouped.places, rows });
  }

  /**
   * Computes the rows that all groups send to this rank's experts, and brings what other ranks
   * made of this group's rows to one place, in the order of the routing.
   */
  #overRanks(own: RoutedRows, experts: CpuExperts): { down: Rows; places: number } {
    const { ranks, arena } = this.#context;
    assert(ranks !== null, 'there are other ranks');
    const { hidden } = experts;
    const groupSize = ranks.heads.size;
    const exchange = new ExpertExchange(ranks.experts, { groupSize, count: experts.count });
    const arrived = exchange.dispatch(own);
    const count = arrived.values.length;
    const outputs = new Float32Array(count * hidden);
    if (count > 0) {
      const input = rowsAt(this.#arrived.at(rowsAt(0, count, hidden).bytes), count, hidden);
      for (const [i, row] of arrived.values.entries()) {
        arena.f32.set(row, (input.at + i * input.stride) / 4);
      }
      const grouped = this.#group(arrived.experts, 1, experts.count);
      const down = this.#compute(input, count, grouped, experts);
      for (let i = 0; i < count; i++) {
        const place = at(arena.i32, grouped.places / 4 + i);
        outputs.set(this.#floats(down.at + place * down.stride, hidden), i * hidden);
      }
    }
    const slots = own.chosen.length;
    const down = rowsAt(this.#outputs.at(rowsAt(0, slots, hidden).bytes), slots, hidden);
    const places = this.#places.at(slots * 4);
    exchange.combine(own, arrived, outputs, (slot, output) => {
      arena.f32.set(output, (down.at + slot * down.stride) / 4);
      arena.i32[places / 4 + slot] = slot;
    });
    return { down, places };
  }

  #floats(start: number, count: number): Float32Array {
    return this.#context.arena.f32.subarray(start / 4, start / 4 + count);
  }

  /** Returns what the experts make of their rows, in the order of the experts. */
  #compute(x: Place, slots: number, grouped: Grouped, experts: CpuExperts): Rows {
    const { hidden, inner } = experts;
    const input = this.#gathered(x, slots, experts);
    const gate = rowsAt(this.#inner.at(2 * rowsAt(0, slots, inner).bytes), slots, inner);
    const up = rowsAt(gate.at + gate.bytes, slots, inner);
    this.#perExpert(experts, 'gate', grouped, { input, out: gate });
    this.#perExpert(experts, 'up', grouped, { input, out: up });
    this.#activate(gate, up, slots, inner);
    const activated = this.#gemm.input(gate, at(experts.matrices, 0).down, slots);
    const down = rowsAt(this.#outputs.at(rowsAt(0, slots, hidden).bytes), slots, hidden);
    this.#perExpert(experts, 'down', grouped, { input: activated, out: down });
    return down;
  }

  /**
   * Sorts the rows by expert, rows ascending within each; writes where each (row, choice) went.
   * `chosen` is [rows, perToken].
   */
  #group(chosen: Int32Array, perToken: number, count: number): Grouped {
    const slots = chosen.length;
    const starts = new Int32Array(count + 1);
    for (const expert of chosen) {
      assert(expert >= 0 && expert < count, `there is no expert ${expert}`);
      starts[expert + 1] = at(starts, expert + 1) + 1;
    }
    for (let e = 0; e < count; e++) starts[e + 1] = at(starts, e + 1) + at(starts, e);
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
  #gathered(x: Place, slots: number, experts: CpuExperts): Rows {
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
