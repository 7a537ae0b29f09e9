// Ops on one row at a time. A task takes `rowsPerTask` rows; strides are in bytes.

import { MatrixView } from './gemm';
import { dtypeBf16, dtypeF32 } from './op-codes';
import {
  loadOneE4m3, exp, groupScale, maxMagnitude, roundE4m3, rounded,
} from './numbers';

const scaleGroup: u32 = 128;
// ----

// @ts-ignore: decorator
@inline
function sumLanes(x: v128): f32 {
  const low = f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1);
  return low + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
}

function sum(x: usize, columns: u32): f32 {
  let lanes = f32x4.splat(0);
  const whole = columns & ~3;
  for (let i: u32 = 0; i < whole; i += 4) lanes = f32x4.add(lanes, v128.load(x + (i << 2)));
  let total = sumLanes(lanes);
  for (let i = whole; i < columns; i++) total += load<f32>(x + (i << 2));
  return total;
}

/** Sum of (x - centre)^2. */
function sumSquares(x: usize, columns: u32, centre: f32): f32 {
  let lanes = f32x4.splat(0);
  const middle = f32x4.splat(centre);
  const whole = columns & ~3;
  for (let i: u32 = 0; i < whole; i += 4) {
    const value = f32x4.sub(v128.load(x + (i << 2)), middle);
    lanes = f32x4.add(lanes, f32x4.mul(value, value));
  }
  let total = sumLanes(lanes);
  for (let i = whole; i < columns; i++) {
    const value = load<f32>(x + (i << 2)) - centre;
    total += value * value;
  }
  return total;
}
@unmanaged
class NormArguments {
  rows: u32;
  rowsPerTask: u32;
  columns: u32;
  out: usize;
  outStride: usize;
  x: usize;
  xStride: usize;
  /** Added to and replaced by the sum; 0 without. */
  residual: usize;
  residualStride: usize;
  weight: usize;
  /** 0 without. */
  bias: usize;
  epsilon: f32;
  round: u32;
}

/** out = (x - centre) * scale * weight + bias; the parts of four columns or of one. */
// @ts-ignore: decorator
@inline
function normalized(x: v128, centre: v128, scale: v128, weight: v128): v128 {
  return f32x4.mul(weight, f32x4.mul(f32x4.sub(x, centre), scale));
}

function writeNormalized(
  job: NormArguments, out: usize, x: usize, centre: f32, scale: f32, round: bool,
): void {
  const columns = job.columns, whole = columns & ~3;
  const middle = f32x4.splat(centre), factor = f32x4.splat(scale);
  for (let i: u32 = 0; i < columns; ) {
    const at: usize = i << 2;
    const full = i < whole;
    const value = full ? v128.load(x + at) : v128.load_splat<f32>(x + at);
    const weight = full ? v128.load(job.weight + at) : v128.load_splat<f32>(job.weight + at);
    let result = normalized(value, middle, factor, weight);
    if (job.bias != 0) {
      const bias = full ? v128.load(job.bias + at) : v128.load_splat<f32>(job.bias + at);
      result = f32x4.add(result, bias);
    }
    result = rounded(result, round);
    if (full) v128.store(out + at, result);
    else v128.store_lane<f32>(out + at, result, 0);
    i += full ? 4 : 1;
  }
}

export function rmsNorm(at: usize, task: u32, scratch: usize): void {
  const job = changetype<NormArguments>(at);
  const round = job.round != 0, columns = job.columns;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    let x = job.x + r * job.xStride;
    if (job.residual != 0) {
      // The norm is taken of the unrounded sum, so the sum goes to scratch and its rounding back.
      addRow(scratch, job.residual + r * job.residualStride, x, columns, false);
      x = scratch;
    }
    const mean = sumSquares(x, columns, 0) / <f32>columns;
    const scale = <f32>1 / sqrt<f32>(mean + job.epsilon);
    writeNormalized(job, job.out + r * job.outStride, x, 0, scale, round);
    if (job.residual != 0) roundRow(job.residual + r * job.residualStride, x, columns, round);
  }
}

export function layerNorm(at: usize, task: u32): void {
  const job = changetype<NormArguments>(at);
  const columns = job.columns;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const x = job.x + r * job.xStride;
    const mean = sum(x, columns) / <f32>columns;
    const variance = sumSquares(x, columns, mean) / <f32>columns;
    const scale = <f32>1 / sqrt<f32>(variance + job.epsilon);
    writeNormalized(job, job.out + r * job.outStride, x, mean, scale, job.round != 0);
  }
}
function addRow(out: usize, a: usize, b: usize, columns: u32, round: bool): void {
  let i: u32 = 0;
  for (; i + 4 <= columns; i += 4) {
    const at: usize = i << 2;
    v128.store(out + at, rounded(f32x4.add(v128.load(a + at), v128.load(b + at)), round));
  }
  for (; i < columns; i++) {
    const at: usize = i << 2;
    const value = f32x4.add(v128.load_splat<f32>(a + at), v128.load_splat<f32>(b + at));
    v128.store_lane<f32>(out + at, rounded(value, round), 0);
  }
}

function roundRow(out: usize, x: usize, columns: u32, round: bool): void {
  let i: u32 = 0;
  for (; i + 4 <= columns; i += 4) {
    v128.store(out + (i << 2), rounded(v128.load(x + (i << 2)), round));
  }
  for (; i < columns; i++) {
    const value = rounded(v128.load_splat<f32>(x + (i << 2)), round);
    v128.store_lane<f32>(out + (i << 2), value, 0);
  }
}

@unmanaged
class PairArguments {
  rows: u32;
  rowsPerTask: u32;
  columns: u32;
  out: usize;
  outStride: usize;
  a: usize;
  aStride: usize;
  b: usize;
  bStride: usize;
  round: u32;
}

/** out = a + b */
export function add(at: usize, task: u32): void {
  const job = changetype<PairArguments>(at);
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const out = job.out + r * job.outStride;
    addRow(out, job.a + r * job.aStride, job.b + r * job.bStride, job.columns, job.round != 0);
  }
}

// @ts-ignore: decorator
@inline
function silu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp(f32x4.neg(x))));
}

/** out = silu(a) * b */
export function siluMultiply(at: usize, task: u32): void {
  const job = changetype<PairArguments>(at);
  const columns = job.columns, round = job.round != 0;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    let out = job.out + r * job.outStride, a = job.a + r * job.aStride, b = job.b + r * job.bStride;
    let i: u32 = 0;
    for (; i + 4 <= columns; i += 4) {
      v128.store(out, rounded(f32x4.mul(silu(v128.load(a)), v128.load(b)), round));
      out += 16; a += 16; b += 16;
    }
    for (; i < columns; i++) {
      const value = f32x4.mul(silu(v128.load_splat<f32>(a)), v128.load_splat<f32>(b));
      v128.store_lane<f32>(out, rounded(value, round), 0);
      out += 4; a += 4; b += 4;
    }
  }
}

@unmanaged
class CopyArguments {
  rows: u32;
  rowsPerTask: u32;
  /** Bytes of each of `parts` parts of a row, and where the parts lie. */
  partBytes: usize;
  parts: u32;
  out: usize;
  outStride: usize;
  outPartStride: usize;
  x: usize;
  xStride: usize;
  xPartStride: usize;
  /** [rows] i32 rows of x, or 0 for the same rows. */
  rowIndices: usize;
}

export function copyRows(at: usize, task: u32): void {
  const job = changetype<CopyArguments>(at);
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const from = job.rowIndices == 0 ? r : load<u32>(job.rowIndices + (r << 2));
    let x = job.x + from * job.xStride, out = job.out + r * job.outStride;
    for (let p: u32 = 0; p < job.parts; p++) {
      memory.copy(out, x, job.partBytes);
      x += job.xPartStride;
      out += job.outPartStride;
    }
  }
}

@unmanaged
class EmbedArguments {
  rows: u32;
  rowsPerTask: u32;
  out: usize;
  outStride: usize;
  matrix: usize;
  /** [rows] i32 */
  tokens: usize;
  round: u32;
}

/** One row of a weight, out of its panel: every eighth element. */
export function embed(at: usize, task: u32): void {
  const job = changetype<EmbedArguments>(at);
  const matrix = changetype<MatrixView>(job.matrix);
  const inputs = matrix.inputs, dtype = matrix.dtype;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const token = load<u32>(job.tokens + (r << 2));
    const start = <usize>(token >> 3) * (inputs << 3) + (token & 7);
    const out = job.out + r * job.outStride;
    for (let i: u32 = 0; i < inputs; i++) {
      const index = start + (i << 3);
      let value: v128;
      if (dtype == dtypeF32) value = v128.load_splat<f32>(matrix.weights + (index << 2));
      else if (dtype == dtypeBf16) {
        value = i32x4.splat(<i32>load<u16>(matrix.weights + (index << 1)) << 16);
      } else {
        value = loadOneE4m3(matrix.weights + index);
        const group = (token / scaleGroup) * matrix.scaleColumns + i / scaleGroup;
        value = f32x4.mul(value, v128.load_splat<f32>(matrix.scales + (group << 2)));
      }
      v128.store_lane<f32>(out + (i << 2), rounded(value, job.round != 0), 0);
    }
  }
}
@unmanaged
class QuantizeArguments {
  rows: u32;
  rowsPerTask: u32;
  columns: u32;
  /** e4m3 values as floats */
  out: usize;
  outStride: usize;
  /** [rows][ceil(columns / 128)] f32 */
  scales: usize;
  scaleStride: usize;
  x: usize;
  xStride: usize;
  /** [rows] i32 rows of x, or 0 for the same rows. */
  rowIndices: usize;
  powerOfTwo: u32;
}

export function quantize(at: usize, task: u32): void {
  const job = changetype<QuantizeArguments>(at);
  const columns = job.columns;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const from = job.rowIndices == 0 ? r : load<u32>(job.rowIndices + (r << 2));
    const x = job.x + from * job.xStride, out = job.out + r * job.outStride;
    let scaleAt = job.scales + r * job.scaleStride;
    for (let start: u32 = 0; start < columns; start += scaleGroup) {
      const group: usize = start << 2;
      const count = min(scaleGroup, columns - start);
      const scale = roundGroup(out + group, x + group, count, job.powerOfTwo != 0);
      store<f32>(scaleAt, scale);
      scaleAt += 4;
    }
  }
}

/** x[0, count) / scale as e4m3 values; returns the scale. */
export function roundGroup(out: usize, x: usize, count: u32, powerOfTwo: bool): f32 {
  const scale = groupScale(maxMagnitude(x, count), powerOfTwo);
  const divisor = f32x4.splat(scale);
  let i: u32 = 0;
  for (; i + 4 <= count; i += 4) {
    v128.store(out + (i << 2), roundE4m3(f32x4.div(v128.load(x + (i << 2)), divisor)));
  }
  for (; i < count; i++) {
    const value = roundE4m3(f32x4.div(v128.load_splat<f32>(x + (i << 2)), divisor));
    v128.store_lane<f32>(out + (i << 2), value, 0);
  }
  return scale;
}
