/** Mixture of experts: the gate, and the routed experts as GEMMs over grouped rows (moe.cu). */
import { strict as assert } from 'node:assert';
import { checkExperts, checkGroups, checkRoutingRows } from '../../checks.ts';
import { LargestExperts } from '../../moe.ts';
import type { MoeOps, RouteOptions } from '../../moe.ts';
import type { ExpertMatrices, Experts, Routing, Tensor, Vector } from '../../shapes.ts';
import {
  asCuda,
  checkedVector,
  CudaExperts,
  CudaMatrix,
  CudaRouting,
  f32Tensor,
  inputTensor,
  outputTensor,
} from '../handles.ts';
import type { CudaTensor, ExpertTable } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { Scratch } from '../runtime/device.ts';
import type { CudaGemm, Grouping } from './gemm.ts';
import { padded } from './gemm-inputs.ts';
import type { Input, Output, Weight } from './gemm-inputs.ts';

/** Threads of a block of the sum over experts; each takes 8 columns. */
const threads = 128;
/** Slots that a block sorts (moe.cu). */
const chunkSlots = 1024;
/** Fewest rows of a tile of the experts' products. */
const tileRowsMin = 8;

export class CudaMoe implements MoeOps {
  readonly #context: OpContext;
  readonly #gemm: CudaGemm;
  readonly #numbers: Scratch;
  readonly #inner: Scratch;
  readonly #outputs: Scratch;
  readonly #largest = new LargestExperts();

  constructor(context: OpContext, gemm: CudaGemm) {
    this.#context = context;
    this.#gemm = gemm;
    this.#numbers = new Scratch(context.device, "the experts' row numbers");
    this.#inner = new Scratch(context.device, "the experts' inner activations");
    this.#outputs = new Scratch(context.device, "the experts' outputs");
  }

  experts(handles: readonly ExpertMatrices[]): CudaExperts {
    const shape = checkExperts(handles);
    const gate = this.#table(handles.map((handle) => asCuda(CudaMatrix, handle.gate)));
    const up = this.#table(handles.map((handle) => asCuda(CudaMatrix, handle.up)));
    const down = this.#table(handles.map((handle) => asCuda(CudaMatrix, handle.down)));
    assert(up.dtype === gate.dtype, "the experts' up matrices do not fit their gates");
    this.#largest.addExperts(shape, handles.length);
    this.#reserve();
    return new CudaExperts(handles.length, { gate, up, down });
  }

  /** The addresses of one matrix of all experts, which must be alike. */
  #table(matrices: readonly CudaMatrix[]): ExpertTable {
    const { device } = this.#context;
    const [first] = matrices;
    assert(first !== undefined, 'there are no experts');
    for (const { name, dtype } of matrices) {
      assert(dtype === first.dtype, `${name} does not fit the other experts`);
    }
    const send = (addresses: readonly number[]) => {
      const bytes = BigInt64Array.from(addresses, BigInt);
      const at = device.allocate(bytes.byteLength, 'weight', 'addresses of experts');
      device.upload(at, new Uint8Array(bytes.buffer));
      return at;
    };
    const { inputs, outputs, dtype } = first;
    const map = this.#gemm.mapExperts(matrices);
    const weights = send(matrices.map(({ at }) => at));
    const scales = first.scales === 0 ? 0 : send(matrices.map((matrix) => matrix.scales));
    return { weights, scales, map, dtype, outputs, inputs };
  }

  routing(rows: number, perToken: number): CudaRouting {
    const { device } = this.#context;
    this.#largest.addRouting(perToken);
    this.#reserve();
    const column = () => device.allocate(rows * perToken * 4, 'activation', 'a routing');
    return new CudaRouting({ rows, perToken }, { experts: column(), weights: column() });
  }

  /**
   * Takes the scratch of a step as soon as both the experts and their number per token are known.
   */
  #reserve(): void {
    const { hidden, inner, experts } = this.#largest;
    const slots = this.#largest.slots(this.#context.step.rowsMax);
    if (slots === 0) return;
    this.#places(slots, experts, tileRowsMin);
    const { activationBytes } = this.#context;
    this.#inner.at(2 * slots * padded(inner) * activationBytes);
    this.#outputs.at(slots * padded(hidden) * activationBytes);
    this.#gemm.inputs.reserve(slots, Math.max(hidden, inner));
  }

  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void {
    const { device, defines } = this.#context;
    const routing = asCuda(CudaRouting, out);
    const experts = logits.columns;
    const from = f32Tensor(logits, rows, experts);
    checkRoutingRows(routing, rows);
    checkGroups(experts, routing.perToken, options);
    const { groups, groupsKept } = options;
    const sharedBytes = (experts + groups) * 8;
    const shape = { grid: [rows, 1, 1], threads: 32, sharedBytes } as const;
    device.launch(device.kernel('moe', 'route', defines), shape, {
      logits: from.at,
      logit_stride: from.stride,
      experts,
      bias: checkedVector(bias, experts).at,
      groups,
      groups_kept: groupsKept,
      per_token: routing.perToken,
      normalize: options.normalize,
      scale: options.scale,
      chosen: routing.experts,
      weights: routing.weights,
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
    const { activation, activationBytes } = this.#context;
    const routing = asCuda(CudaRouting, routed);
    const experts = asCuda(CudaExperts, handle);
    const { inputs: hidden, outputs: inner } = experts.gate;
    const from = inputTensor(x, rows, hidden);
    const into = outputTensor(out, rows, hidden);
    const added = inputTensor(shared, rows, hidden);
    checkRoutingRows(routing, rows);

    const slots = rows * routing.perToken;
    const grouped = this.#group(routing, experts, rows);
    const plain = {
      at: from.at,
      stride: from.stride,
      columns: hidden,
      rowIndices: grouped.sources,
      tensor: { of: from, rows },
    };
    const input = this.#gemm.inputs.prepare(plain, weightOf(experts.gate), {
      rows: slots,
      exact: false,
    });
    const stride = padded(inner);
    const innerBytes = slots * stride * activationBytes;
    const gate = { at: this.#inner.at(2 * innerBytes), stride, format: activation };
    const up = { ...gate, at: gate.at + innerBytes };
    this.#perExpert(experts.gate, grouped, { input, out: gate, slots });
    this.#perExpert(experts.up, grouped, { input, out: up, slots });
    const activated = this.#gemm.inputs.prepareActivated(gate, up, weightOf(experts.down), slots);
    const down = {
      at: this.#outputs.at(slots * padded(hidden) * activationBytes),
      stride: padded(hidden),
      format: activation,
    };
    this.#perExpert(experts.down, grouped, { input: activated, out: down, slots });
    this.#combine({ into, added, down, routing, places: grouped.places, rows });
  }

  /** Addresses of the row numbers of a step. */
  #places(slots: number, experts: number, tileRows: number) {
    const tilesMax = Math.min(slots, Math.ceil(slots / tileRows) + experts);
    const chunks = Math.ceil(slots / chunkSlots);
    const numbers = (chunks + 1) * experts + 1 + 2 * slots + 2 * tilesMax;
    const counts = this.#numbers.at(numbers * 4);
    const starts = counts + chunks * experts * 4;
    const places = starts + (experts + 1) * 4;
    const sources = places + slots * 4;
    const tiles = sources + slots * 4;
    return { counts, starts, places, sources, tiles, tilesMax, tileRows, chunks };
  }

  /** Sorts the rows by expert, rows ascending within each, and cuts them into tiles. */
  #group(routing: CudaRouting, handle: CudaExperts, rows: number) {
    const { device, defines } = this.#context;
    const slots = rows * routing.perToken;
    const experts = handle.count;
    const tileRows = this.#gemm.groupedTileRows(slots, handle);
    const place = this.#places(slots, experts, tileRows);
    const { counts, starts, places, sources, tiles, tilesMax, chunks } = place;
    const args = {
      chosen: routing.experts,
      slots,
      per_token: routing.perToken,
      experts,
      counts,
      starts,
      places,
      sources,
      tiles,
      tiles_max: tilesMax,
      tile_rows: tileRows,
      chunks,
    };
    // Totals of all experts, and counts of each of 32 warps.
    const launch = { threads: chunkSlots, sharedBytes: experts * (4 + 32 * 2) } as const;
    const steps =
      chunks === 1
        ? ([['group_rows', 1]] as const)
        : ([
            ['group_count', chunks],
            ['group_starts', 1],
            ['group_place', chunks],
          ] as const);
    for (const [name, blocks] of steps) {
      const kernel = device.kernel('moe', name, defines);
      device.launch(kernel, { ...launch, grid: [blocks, 1, 1] }, args);
    }
    return place;
  }

  #perExpert(
    table: ExpertTable,
    grouped: Pick<Grouping, 'tiles' | 'tilesMax' | 'tileRows' | 'starts'>,
    rows: { input: Input; out: Output; slots: number },
  ): void {
    const { tiles, tilesMax, tileRows, starts } = grouped;
    const { weights, scales, map } = table;
    const grouping: Grouping = { weights, scales, map, tiles, tilesMax, tileRows, starts };
    const options = { rows: rows.slots, grouping };
    this.#gemm.multiply(rows.input, weightOf(table), rows.out, options);
  }

  #combine(call: {
    into: CudaTensor;
    added: CudaTensor;
    down: { at: number; stride: number };
    routing: CudaRouting;
    places: number;
    rows: number;
  }): void {
    const { device, defines } = this.#context;
    const { into, added, down, routing, places, rows } = call;
    const { columns } = into;
    const grid = [rows, Math.ceil(columns / 8 / threads), 1] as const;
    device.launch(
      device.kernel('moe', 'combine', defines),
      { grid, threads },
      {
        out: into.at,
        out_stride: into.stride,
        shared: added.at,
        shared_stride: added.stride,
        routed: down.at,
        routed_stride: down.stride,
        places,
        weights: routing.weights,
        per_token: routing.perToken,
        columns,
      },
    );
  }

  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const from = asCuda(CudaRouting, routing);
    checkRoutingRows(routing, rows);
    const { device } = this.#context;
    const bytes = rows * from.perToken * 4;
    return {
      experts: new Int32Array(device.download(from.experts, bytes).buffer),
      weights: new Float32Array(device.download(from.weights, bytes).buffer),
    };
  }
}

function weightOf({ dtype, outputs, inputs, scales }: ExpertTable): Weight {
  return { dtype, outputs, inputs, at: 0, scales: 0, scaled: scales !== 0 };
}
