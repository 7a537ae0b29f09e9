// out = x W^T, for one weight or for many small ones (experts, heads) in one job.
//
// Panels of narrow dtypes are decoded to 16 KiB of scratch and then shared by the tile's rows; so
// one micro-kernel serves all dtypes. 256 -> 768, GFLOP/s on one core of an EPYC (Zen 4):
//             1 row   8 rows   512 rows
//   f32        18.6     42        42
//   bf16       11.6     36        41
//   e4m3        7.3     27        35    quantised input, a scale per 128 x 128
//   e4m3        3.5     18        33    before numbers.ts decoded in 16-bit lanes

import { dtypeBf16, dtypeE4m3, dtypeF32, tileBytes, tileRowsMax } from './op-codes';
import { e4m3Halves, e4m3Scaled, rounded, widenHigh, widenLow } from './numbers';
import { tileRows } from './tiles';

/** A weight, packed in panels of 8 outputs: [ceil(outputs / 8)][inputs][8] in its own dtype. */
@unmanaged
export class MatrixView {
  weights: usize;
  dtype: u32;
  outputs: u32;
  inputs: u32;
  /** [ceil(outputs / 128)][ceil(inputs / 128)] f32, or 0 for a weight without scales. */
  scales: usize;
  scaleColumns: u32;
}

/** Up to 64 rows that go through one matrix. */
@unmanaged
class Tile {
  matrix: usize;
  /** [rows][inputs] f32, e4m3 values if the input was quantised */
  x: usize;
  /** [rows][ceil(inputs / 128)] f32, or 0 if it was not */
  xScales: usize;
  /** [rows][outputs] f32 */
  out: usize;
  rows: u32;
}

@unmanaged
class GemmArguments {
  /** [tileCount] Tile */
  tiles: usize;
  tileCount: u32;
  /** Parts that the panels of each tile are split into; task = tile * chunks + chunk. */
  chunks: u32;
  /** Strides in bytes. */
  xStride: usize;
  xScaleStride: usize;
  outStride: usize;
  round: u32;
}

/** Inputs that are summed before the next part of the panel is decoded; 16 KiB of floats. */
const depthMax: u32 = 512;
const scaleGroup: u32 = 128;

/** Codes [count][8] at `from` as floats at `to`; returns where the floats lie. */
function decodePanel(from: usize, dtype: u32, count: u32, to: usize): usize {
  if (dtype == dtypeF32) return from;
  const end = to + (count << 5);
  let out = to;
  if (dtype == dtypeBf16) {
    for (; out != end; out += 32, from += 16) {
      const codes = v128.load(from);
      v128.store(out, widenLow(codes));
      v128.store(out, widenHigh(codes), 16);
    }
  } else {
    for (; out != end; out += 32, from += 8) {
      const halves = e4m3Halves(v128.load_zero<u64>(from));
      v128.store(out, e4m3Scaled(widenLow(halves)));
      v128.store(out, e4m3Scaled(widenHigh(halves)), 16);
    }
  }
  return to;
}

/**
 * c[r] (+)= p[r] * scale_r, for one k block of a scaled weight (docs/engine-spec.md#linear-layers).
 */
function foldScaled(
  p: usize,
  c: usize,
  rows: u32,
  xScales: usize,
  xScaleStride: usize,
  scale: f32,
  fresh: bool,
): void {
  for (let r: u32 = 0; r < rows; r++) {
    const factor = xScales == 0 ? scale : load<f32>(xScales + r * xScaleStride) * scale;
    const both = f32x4.splat(factor);
    const a = f32x4.mul(v128.load(p), both);
    const b = f32x4.mul(v128.load(p, 16), both);
    v128.store(c, fresh ? a : f32x4.add(v128.load(c), a));
    v128.store(c, fresh ? b : f32x4.add(v128.load(c, 16), b), 16);
    p += 32;
    c += 32;
  }
}

function storePanel(
  c: usize,
  out: usize,
  outStride: usize,
  rows: u32,
  width: u32,
  round: bool,
): void {
  for (let r: u32 = 0; r < rows; r++) {
    const a = rounded(v128.load(c), round);
    const b = rounded(v128.load(c, 16), round);
    if (width >= 8) {
      v128.store(out, a);
      v128.store(out, b, 16);
    } else {
      v128.store(c, a);
      v128.store(c, b, 16);
      memory.copy(out, c, width << 2);
    }
    c += 32;
    out += outStride;
  }
}

export function gemm(at: usize, task: u32, scratch: usize): void {
  const job = changetype<GemmArguments>(at);
  const tile = changetype<Tile>(job.tiles + (task / job.chunks) * tileBytes);
  const matrix = changetype<MatrixView>(tile.matrix);
  const dtype = matrix.dtype, inputs = matrix.inputs, rows = tile.rows;
  const elementShift: u32 = dtype == dtypeF32 ? 5 : dtype == dtypeBf16 ? 4 : 3;
  const scaled = matrix.scales != 0;
  const depth: u32 = scaled ? scaleGroup : depthMax;

  const decoded = scratch;
  const c = decoded + (depthMax << 5);
  const partial = c + (tileRowsMax << 5);

  const panels = (matrix.outputs + 7) >> 3;
  const perChunk = (panels + job.chunks - 1) / job.chunks;
  const first = (task % job.chunks) * perChunk;
  const last = min(first + perChunk, panels);
  for (let panel = first; panel < last; panel++) {
    for (let k: u32 = 0; k < inputs; k += depth) {
      const count = min(depth, inputs - k);
      const from = matrix.weights + ((<usize>panel * inputs + k) << elementShift);
      const w = decodePanel(from, dtype, count, decoded);
      const x = tile.x + (k << 2);
      const fresh = k == 0;
      if (!scaled) {
        for (let r: u32 = 0; r < rows; r += 4) {
          tileRows(rows - r, x + r * job.xStride, job.xStride, w, 32, count, c + (r << 5), fresh);
        }
        continue;
      }
      const group = k / scaleGroup;
      const row = (panel << 3) / scaleGroup;
      const scale = load<f32>(matrix.scales + ((row * matrix.scaleColumns + group) << 2));
      for (let r: u32 = 0; r < rows; r += 4) {
        const some = min<u32>(4, rows - r);
        tileRows(some, x + r * job.xStride, job.xStride, w, 32, count, partial, true);
        const xScales = tile.xScales == 0 ? 0 : tile.xScales + r * job.xScaleStride + (group << 2);
        foldScaled(partial, c + (r << 5), some, xScales, job.xScaleStride, scale, fresh);
      }
    }
    const out = tile.out + (panel << 5);
    storePanel(c, out, job.outStride, rows, matrix.outputs - (panel << 3), job.round != 0);
  }
}
