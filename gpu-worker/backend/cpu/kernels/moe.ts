// The gate (docs/engine-spec.md#moe) and the sum over a row's experts.

import { rounded, sigmoid } from './numbers';

@unmanaged
class RouteArguments {
  rows: u32;
  rowsPerTask: u32;
  logits: usize;
  logitStride: usize;
  experts: u32;
  bias: usize;
  groups: u32;
  groupsKept: u32;
  perToken: u32;
  normalize: u32;
  scale: f32;
  /** [rows][perToken] i32 and f32 */
  chosen: usize;
  weights: usize;
}

/** Sum of the two largest of values[0, count); of the one, if there is no other. */
function topTwo(values: usize, count: u32): f32 {
  if (count == 1) return load<f32>(values);
  let best: f32 = -Infinity, second: f32 = -Infinity;
  for (let i: u32 = 0; i < count; i++) {
    const value = load<f32>(values + (i << 2));
    if (value > best) {
      second = best;
      best = value;
    } else if (value > second) {
      second = value;
    }
  }
  return best + second;
}

/** Index of the largest of values[0, count), the lowest among equals; it becomes -inf. */
function takeLargest(values: usize, count: u32): u32 {
  let index: u32 = 0;
  let best = load<f32>(values);
  for (let i: u32 = 1; i < count; i++) {
    const value = load<f32>(values + (i << 2));
    if (value > best) {
      best = value;
      index = i;
    }
  }
  store<f32>(values + (index << 2), -Infinity);
  return index;
}

export function route(at: usize, task: u32, scratch: usize): void {
  const job = changetype<RouteArguments>(at);
  const experts = job.experts, size = experts / job.groups, perToken = job.perToken;
  const scores = scratch, biased = scores + (experts << 2);
  const groups = biased + (experts << 2), kept = groups + (job.groups << 2);
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    for (let e: u32 = 0; e < experts; e++) {
      const logit = v128.load_splat<f32>(job.logits + r * job.logitStride + (e << 2));
      const score = f32x4.extract_lane(sigmoid(logit), 0);
      store<f32>(scores + (e << 2), score);
      store<f32>(biased + (e << 2), score + load<f32>(job.bias + (e << 2)));
    }
    for (let g: u32 = 0; g < job.groups; g++) {
      store<f32>(groups + (g << 2), topTwo(biased + ((g * size) << 2), size));
    }
    memory.fill(kept, 0, job.groups);
    for (let i: u32 = 0; i < job.groupsKept; i++) {
      store<u8>(kept + takeLargest(groups, job.groups), 1);
    }
    for (let e: u32 = 0; e < experts; e++) {
      if (load<u8>(kept + e / size) == 0) store<f32>(biased + (e << 2), -Infinity);
    }

    let total: f32 = 0;
    const chosen = job.chosen + ((r * perToken) << 2),
      weights = job.weights + ((r * perToken) << 2);
    for (let i: u32 = 0; i < perToken; i++) {
      const e = takeLargest(biased, experts);
      store<u32>(chosen + (i << 2), e);
      total += load<f32>(scores + (e << 2));
    }
    const divisor = job.normalize != 0 ? total + <f32>1e-20 : <f32>1;
    for (let i: u32 = 0; i < perToken; i++) {
      const score = load<f32>(scores + (load<u32>(chosen + (i << 2)) << 2));
      store<f32>(weights + (i << 2), (score / divisor) * job.scale);
    }
  }
}

@unmanaged
class CombineArguments {
  rows: u32;
  rowsPerTask: u32;
  columns: u32;
  out: usize;
  outStride: usize;
  shared: usize;
  sharedStride: usize;
  /** [rows * perToken][columns] f32, the experts' outputs in the order of `places` */
  routed: usize;
  routedStride: usize;
  /** [rows][perToken] i32 */
  places: usize;
  weights: usize;
  perToken: u32;
  round: u32;
}

/** out = sum of weight * routed in the order of the routing, then shared; one rounding. */
export function combine(at: usize, task: u32): void {
  const job = changetype<CombineArguments>(at);
  const columns = job.columns, perToken = job.perToken, whole = columns & ~3;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const places = job.places + ((r * perToken) << 2),
      weights = job.weights + ((r * perToken) << 2);
    const out = job.out + r * job.outStride, shared = job.shared + r * job.sharedStride;
    for (let c: u32 = 0; c < columns;) {
      const column: usize = c << 2;
      const full = c < whole;
      let total = f32x4.splat(0);
      for (let i: usize = 0; i < (<usize>perToken) << 2; i += 4) {
        const from = job.routed + load<u32>(places + i) * job.routedStride + column;
        const value = full ? v128.load(from) : v128.load_splat<f32>(from);
        total = f32x4.add(total, f32x4.mul(v128.load_splat<f32>(weights + i), value));
      }
      const own = full ? v128.load(shared + column) : v128.load_splat<f32>(shared + column);
      total = rounded(f32x4.add(total, own), job.round != 0);
      if (full) v128.store(out + column, total);
      else v128.store_lane<f32>(out + column, total, 0);
      c += full ? 4 : 1;
    }
  }
}
