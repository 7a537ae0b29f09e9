/**
 * Absorbed attention on the tensor cores over entries of 512 latent and 64 rope dimensions
 * (sm90-sparse-mla.cuh). Few rows have their tokens split over the GPU. Where many rows of a
 * sequence come in one step, its fp8 entries are dequantized to bf16 once, in order, instead of by
 * every row that selects them; both ways give the same bits.
 */
import { strict as assert } from 'node:assert';
import { blockTokens } from '../../batch.ts';
import { Scratch } from '../runtime/device.ts';
import { dtypeCode } from '../handles.ts';
import type { CudaLayerCache, CudaSelection, CudaTensor } from '../handles.ts';
import type { Kernel } from '../runtime/kernels.ts';
import type { OpContext } from '../op-context.ts';
import type { PlacedRows } from '../step.ts';

const dims = { latent: 512, rope: 64 } as const;
const bf16EntryBytes = (dims.latent + dims.rope) * 2;
/**
 * Heads that a block takes, the most of them that divide a row's; over fp8 entries a cluster of two
 * blocks takes 128.
 */
const blockHeads = [64, 32, 16, 8] as const;
type BlockHeads = (typeof blockHeads)[number];
/** Entries that a block of dequant_entries takes. */
const dequantWarps = 8;

/**
 * Over how many works a row's tokens are spread, where few rows would leave most of the GPU idle.
 * It depends on nothing but the number of rows, in four steps, so that a schedule's results can be
 * had again: rows of one step have the bits that they have in any step of the same range.
 */
const splitsOfRows: SplitTable = [
  { rowsMax: 4, splits: 16 },
  { rowsMax: 8, splits: 8 },
  { rowsMax: 16, splits: 4 },
  { rowsMax: 32, splits: 2 },
];

/** A row that attends to all its tokens has work for the whole GPU. */
const denseSplitsOfRows: SplitTable = [
  { rowsMax: 1, splits: 64 },
  { rowsMax: 2, splits: 32 },
  ...splitsOfRows,
];

type SplitTable = readonly { readonly rowsMax: number; readonly splits: number }[];

/** A row whose heads one block takes is spread twice as far as one that has two or more blocks. */
function splitTable({ heads, isDense }: { heads: number; isDense: boolean }): SplitTable {
  const table = isDense ? denseSplitsOfRows : splitsOfRows;
  if (heads > 64) return table;
  const twice = table.map(({ rowsMax, splits }) => ({ rowsMax, splits: 2 * splits }));
  return [...twice, { rowsMax: 64, splits: 2 }];
}

/**
 * Into how many parts a step of so many rows splits each of them; 1 for many rows. As many as 128
 * can be added up by combine-splits.cu.
 */
export function splitsFor(rows: number, shape: { heads: number; isDense: boolean }): number {
  return splitTable(shape).find(({ rowsMax }) => rows <= rowsMax)?.splits ?? 1;
}

/** Partial results are kept for so many rows times splits. */
function partsMax(heads: number): number {
  const tables = [true, false].flatMap((isDense) => splitTable({ heads, isDense }));
  return Math.max(...tables.map(({ rowsMax, splits }) => rowsMax * splits));
}

/**
 * A sequence is dequantized for so many rows and more, if they are at least a 256th of its tokens:
 * to dequantize a token takes 0.6 ns at 3 TB/s, and spares a row of 128 heads 0.3 us.
 */
const dequantizedRowsMin = 64;
const dequantizedTokensPerRow = 256;
/**
 * Pages of dequantized entries: more than the published model's longest context of 163,840 tokens.
 */
const dequantizedPages = 2720;
/** Entries in all that are likely not to stay in L2 are brought there ahead. */
const prefetchedTokensMin = 65_536;

export interface SparseMlaCall {
  readonly out: CudaTensor;
  readonly q: CudaTensor;
  readonly cache: CudaLayerCache;
  readonly selection: CudaSelection | null;
  readonly lse: CudaTensor | null;
  readonly rows: number;
  readonly heads: number;
  readonly scale: number;
}

/** Rows whose entries lie in one place. */
interface Part {
  readonly firstRow: number;
  readonly rows: number;
  readonly isFp8: boolean;
  readonly at: number;
  /** Address of the block tables, or 0: pages lie in the tables' order, `firstPage` first. */
  readonly tables: number;
  readonly firstPage: number;
  /** About how many tokens the rows' sequences have. */
  readonly tokens: number;
}

export class SparseMla {
  readonly #context: OpContext;
  readonly #parts: Scratch;
  #dequantizedAt: number | null = null;

  constructor(context: OpContext) {
    this.#context = context;
    this.#parts = new Scratch(context.device, 'attention over parts of a row');
  }

  /** True if the kernels have this shape and this rounding. */
  fits({ shape, latentFormat }: CudaLayerCache, heads: number): boolean {
    const narrow = this.#isNarrow && latentFormat !== dtypeCode.F32;
    return narrow && isShape(heads, shape.latentDim) && shape.ropeDim === dims.rope;
  }

  /**
   * At start, before the caches take what is left: the place of dequantized entries, if there can
   * be any.
   */
  reserveFor(heads: number, latentDim: number): void {
    const { latentCache } = this.#context.numerics;
    if (this.#isNarrow && latentCache === 'fp8' && isShape(heads, latentDim)) this.#reserve(heads);
  }

  get #isNarrow(): boolean {
    return this.#context.useTensorCores && this.#context.numerics.activations === 'bf16';
  }

  #reserve(heads: number): number {
    if (this.#dequantizedAt === null) {
      const bytes = dequantizedPages * blockTokens * bf16EntryBytes;
      const what = 'entries dequantized for many rows';
      this.#dequantizedAt = this.#context.device.allocate(bytes, 'activation', what);
      // No step of the start need have so many rows.
      this.#dequantKernel();
      for (const splits of [1, 2]) this.#kernel({ heads, isFp8: false, splits });
    }
    return this.#dequantizedAt;
  }

  attend(call: SparseMlaCall): void {
    const { out, q, cache, rows, heads, selection } = call;
    assert(
      [out.at, out.stride * 2, q.at, q.stride * 2].every((bytes) => bytes % 16 === 0),
      'queries and outputs of attention must be aligned to 16 bytes',
    );
    assert(
      (cache.shape.blocks * blockTokens * cache.entryBytes) / 16 < 2 ** 31,
      'the kernel counts 16 bytes of a cache in 31 bits',
    );
    const splits = splitsFor(rows, { heads, isDense: selection === null });
    const dequantized = this.#dequantize(call);
    const rowsBefore = dequantized?.firstRow ?? rows;
    if (rowsBefore > 0) this.#launch(call, this.#inCache(cache, rowsBefore), splits);
    if (dequantized !== null) this.#launch(call, dequantized, splits);
    if (splits > 1) this.#combine(call, splits);
  }

  #inCache({ latents, latentFormat }: CudaLayerCache, rows: number): Part {
    const { step } = this.#context;
    return {
      firstRow: 0,
      rows,
      isFp8: latentFormat === dtypeCode.F8_E4M3,
      at: latents,
      tables: step.tables,
      firstPage: 0,
      tokens: step.longestBucket,
    };
  }

  /**
   * Dequantizes the entries of the last sequences that all have many rows among the first `rows`.
   */
  #dequantize({ cache, rows, heads }: SparseMlaCall): Part | null {
    const { device, step } = this.#context;
    const { latents, latentFormat } = cache;
    // Steps of few rows are repeated, so they must not look at the batch.
    if (latentFormat !== dtypeCode.F8_E4M3 || !step.hasRun(dequantizedRowsMin)) return null;
    const chosen = lastWithManyRows(step.sequences.filter(({ rowStart }) => rowStart < rows));
    const [first] = chosen;
    if (first === undefined) return null;
    const firstPage = Math.min(...chosen.map(({ tableStart }) => tableStart));
    const dequantized = this.#reserve(heads);
    const kernel = this.#dequantKernel();
    for (const { table, tableStart, tokens } of chosen) {
      const at = dequantized + (tableStart - firstPage) * blockTokens * bf16EntryBytes;
      const shape = {
        grid: [Math.ceil(tokens / dequantWarps), 1, 1],
        threads: dequantWarps * 32,
      } as const;
      device.launch(kernel, shape, { out: at, cache: latents, table, tokens });
    }
    return {
      firstRow: first.rowStart,
      rows: rows - first.rowStart,
      isFp8: false,
      at: dequantized,
      tables: 0,
      firstPage,
      tokens: chosen.reduce((sum, { tokens }) => sum + tokens, 0),
    };
  }

  #launch(call: SparseMlaCall, part: Part, splits: number): void {
    const { device, step } = this.#context;
    const { out, q, selection, lse, heads, scale } = call;
    const { firstRow, rows, isFp8 } = part;
    const { values, sums } = this.#partial(call, splits);
    const { kernel, threads, sharedBytes, ctas, ctaHeads } = this.#kernel({ heads, isFp8, splits });
    const works = (rows * splits * heads) / (ctaHeads * ctas);
    const clusters = Math.min(works, Math.floor(device.smCount / ctas));
    const shape = { grid: [clusters * ctas, 1, 1], threads, sharedBytes } as const;
    device.launch(kernel, shape, {
      out: out.at + firstRow * out.stride * 2,
      out_stride: out.stride,
      q: q.at + firstRow * q.stride * 2,
      q_stride: q.stride,
      cache: part.at,
      rows,
      heads,
      splits,
      positions: step.positions + firstRow * 4,
      tables: part.tables,
      table_start: step.tableStarts + firstRow * 8,
      first_page: part.firstPage,
      selected: selection === null ? null : selection.at + firstRow * selection.width * 4,
      width: selection?.width ?? 0,
      counts: selection === null ? null : selection.counts + firstRow * 4,
      lse: lse === null ? null : lse.at + firstRow * lse.stride * 4,
      lse_stride: lse?.stride ?? 0,
      scale,
      partial: values,
      partial_lse: sums,
      prefetch: part.tokens >= prefetchedTokensMin,
    });
  }

  /** The kernel for so many heads, and how many blocks of how many heads are a cluster. */
  #kernel(of: { heads: number; isFp8: boolean; splits: number }) {
    const { device } = this.#context;
    const { heads, isFp8 } = of;
    const ctaHeads = headsOfBlock(heads);
    const sharedBytes = sharedBytesFor(ctaHeads);
    const specialised = {
      kFp8: isFp8 ? 1 : 0,
      kSplit: of.splits > 1 ? 1 : 0,
      kSharedBytes: sharedBytes,
    };
    const launched = { sharedBytes, ctaHeads, threads: threadsOf({ isFp8, ctaHeads }) };
    const few = { ...specialised, kBlockHeads: ctaHeads };
    if (isFp8) {
      const ctas = heads % 128 === 0 ? 2 : 1;
      const kernel =
        ctaHeads === 64
          ? device.kernel('sparseMlaFp8', 'sm90_sparse_mla', { ...specialised, kCtas: ctas })
          : device.kernel('sparseMlaFewFp8', 'sm90_sparse_mla', few);
      return { ...launched, kernel, ctas };
    }
    const kBlocksOfRow = heads > ctaHeads ? 2 : 1;
    const kernel =
      ctaHeads === 64
        ? device.kernel('sparseMlaBf16', 'sm90_sparse_mla', { ...specialised, kBlocksOfRow })
        : device.kernel('sparseMlaFewBf16', 'sm90_sparse_mla', { ...few, kBlocksOfRow });
    return { ...launched, kernel, ctas: 1 };
  }

  #dequantKernel(): Kernel {
    const defines = { kFp8: 0, kSplit: 0, kSharedBytes: sharedBytesFor(64) };
    return this.#context.device.kernel('sparseMlaBf16', 'dequant_entries', defines);
  }

  #combine(call: SparseMlaCall, splits: number): void {
    const { device } = this.#context;
    const { out, lse, heads, rows } = call;
    const { values, sums } = this.#partial(call, splits);
    const perHead = { grid: [heads, rows, 1], threads: 128 } as const;
    device.launch(device.kernel('combineSplits', 'combine_splits'), perHead, {
      out: out.at,
      out_stride: out.stride,
      lse: lse?.at ?? null,
      lse_stride: lse?.stride ?? 0,
      partial: values,
      partial_lse: sums,
      heads,
      splits,
    });
  }

  /**
   * Addresses where splits leave their values, [rows, splits, heads, 512] f32, and the logs of
   * their sums.
   */
  #partial({ heads }: SparseMlaCall, splits: number): { values: number; sums: number } {
    if (splits === 1) return { values: 0, sums: 0 };
    const parts = partsMax(heads) * heads;
    const valueBytes = parts * dims.latent * 4;
    const values = this.#parts.at(valueBytes + parts * 4);
    return { values, sums: values + valueBytes };
  }
}

/** The last sequences that are all worth being dequantized and fit together where that is done. */
function lastWithManyRows(sequences: readonly PlacedRows[]): readonly PlacedRows[] {
  let [firstPage, endPage] = [Infinity, 0];
  let from = sequences.length;
  for (const { rowCount, tokens, tableStart } of sequences.toReversed()) {
    firstPage = Math.min(firstPage, tableStart);
    endPage = Math.max(endPage, tableStart + Math.ceil(tokens / blockTokens));
    const many = Math.max(dequantizedRowsMin, tokens / dequantizedTokensPerRow);
    if (rowCount < many || endPage - firstPage > dequantizedPages) break;
    from--;
  }
  return sequences.slice(from);
}

function isShape(heads: number, latentDim: number): boolean {
  return heads % 8 === 0 && latentDim === dims.latent;
}

function headsOfBlock(heads: number): BlockHeads {
  const most = blockHeads.find((each) => heads % each === 0);
  assert(most !== undefined, `attention of ${heads} heads is for the plain kernel`);
  return most;
}

/**
 * Queries, two buffers of 64 entries, outputs, barriers, maxima and sums; of few heads two groups'
 * weights and the maxima of their warps besides.
 */
function sharedBytesFor(heads: BlockHeads): number {
  const both = 9 * heads * 128 + 2 * 73_728 + 8192 + 128 + 512;
  return both + (heads === 64 ? 1024 : heads * (2 * 128 + 64 + 32));
}

/** Two groups that consume, and the warps that bring entries. */
function threadsOf({ isFp8, ctaHeads }: { isFp8: boolean; ctaHeads: BlockHeads }): number {
  const dequantizing = ctaHeads === 64 ? 8 : 16;
  return 256 + 32 * (isFp8 ? dequantizing : 4);
}
