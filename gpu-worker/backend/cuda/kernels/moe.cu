// The gate, the grouping of rows by expert, and the sum over a row's experts
// (docs/engine-spec.md#moe).

struct RouteArgs {
  const float* logits;  // [rows, logit_stride]
  i64 logit_stride, experts;
  const float* bias;  // [experts]
  i64 groups, groups_kept, per_token, normalize;
  real scale;
  int* chosen;     // [rows, per_token]
  float* weights;  // [rows, per_token]
};

/**
 * Index of the largest of values[0, count), the lowest among equals, by a warp; it becomes -inf.
 */
__device__ __forceinline__ int take_largest(float* values, int count) {
  int lane = threadIdx.x & 31;
  float best = minus_infinity();
  int index = 0x7fffffff;
  for (int i = lane; i < count; i += 32) {
    if (values[i] > best || index == 0x7fffffff) {
      best = values[i];
      index = i;
    }
  }
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) {
    float other = __shfl_xor_sync(0xffffffffu, best, d);
    int other_index = __shfl_xor_sync(0xffffffffu, index, d);
    if (other_index != 0x7fffffff &&
        (index == 0x7fffffff || other > best || (other == best && other_index < index))) {
      best = other;
      index = other_index;
    }
  }
  if (lane == 0) values[index] = minus_infinity();
  __syncwarp();
  return index;
}

/** One warp per row. Shared: scores [experts], biased [experts], groups [groups], kept [groups]. */
extern "C" __global__ void __launch_bounds__(32) route(const __grid_constant__ RouteArgs a) {
  extern __shared__ float shared[];
  int experts = (int)a.experts, groups = (int)a.groups, size = experts / groups;
  float* scores = shared;
  float* biased = scores + experts;
  float* best = biased + experts;
  int* kept = (int*)(best + groups);
  i64 row = blockIdx.x;
  int lane = threadIdx.x;
  for (int e = lane; e < experts; e += 32) {
    float score = 1.f / (1.f + exp_reference(-a.logits[row * a.logit_stride + e]));
    scores[e] = score;
    biased[e] = score + a.bias[e];
  }
  for (int g = lane; g < groups; g += 32) kept[g] = 0;
  __syncwarp();
  for (int g = lane; g < groups; g += 32) {
    float first = minus_infinity(), second = minus_infinity();
    for (int i = 0; i < size; i++) {
      float value = biased[g * size + i];
      if (value > first) {
        second = first;
        first = value;
      } else if (value > second) {
        second = value;
      }
    }
    best[g] = size == 1 ? biased[g] : first + second;
  }
  __syncwarp();
  for (int i = 0; i < a.groups_kept; i++) {
    int group = take_largest(best, groups);
    if (lane == 0) kept[group] = 1;
    __syncwarp();
  }
  for (int e = lane; e < experts; e += 32) {
    if (!kept[e / size]) biased[e] = minus_infinity();
  }
  __syncwarp();
  float total = 0.f;
  for (int i = 0; i < a.per_token; i++) {
    int expert = take_largest(biased, experts);
    if (lane == 0) a.chosen[row * a.per_token + i] = expert;
    total += scores[expert];
  }
  __syncwarp();
  float divisor = a.normalize ? total + 1e-20f : 1.f;
  for (int i = lane; i < a.per_token; i += 32) {
    float score = scores[a.chosen[row * a.per_token + i]];
    a.weights[row * a.per_token + i] = (score / divisor) * a.scale.v;
  }
}

struct GroupArgs {
  const int* chosen;  // [slots], slot = row * per_token + choice
  i64 slots, per_token, experts;
  // [chunks, experts] how many of a chunk's 1,024 slots; then how many of those before it
  int* counts;
  int* starts;   // [experts + 1]
  int* places;   // [slots] where each slot went
  int* sources;  // [slots] the row of each place
  int* tiles;    // [tiles_max][2]
  i64 tiles_max, tile_rows, chunks;
};

/**
 * Sum of the values of the threads before this one in a block of 1,024; `total` takes all of them.
 */
__device__ __forceinline__ int sum_before(int value, int* warp_sums, int* total) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int sum = value;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    int other = __shfl_up_sync(0xffffffffu, sum, d);
    if (lane >= d) sum += other;
  }
  __syncthreads();
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < 32; w++) {
    if (w < warp) before += warp_sums[w];
    all += warp_sums[w];
  }
  *total = all;
  return before + sum - value;
}

/**
 * A thread's slot of chunk blockIdx.x: its expert, -1 behind the last slot, and by `rank` how many
 * slots of the same expert come before it in the chunk. `totals` [experts] takes the chunk's
 * counts. Shared: `before` [32][experts].
 */
__device__ __forceinline__ int rank_slot(const GroupArgs& a, u16* before, int* totals, int& rank) {
  int experts = (int)a.experts, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  i64 slot = (i64)blockIdx.x * 1024 + threadIdx.x;
  int expert = slot < a.slots ? a.chosen[slot] : -1;
  for (int i = threadIdx.x; i < 32 * experts; i += 1024) before[i] = 0;
  __syncthreads();
  u32 alike = __match_any_sync(0xffffffffu, expert);
  rank = __popc(alike & ((1u << lane) - 1));
  if (expert >= 0 && rank == 0) before[warp * experts + expert] = (u16)__popc(alike);
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += 1024) {
    int sum = 0;
    for (int w = 0; w < 32; w++) {
      int count = before[w * experts + e];
      before[w * experts + e] = (u16)sum;
      sum += count;
    }
    totals[e] = sum;
  }
  __syncthreads();
  if (expert >= 0) rank += before[warp * experts + expert];
  return expert;
}

/** A block of 1,024 lays the experts one after another and cuts each into row tiles. */
__device__ __forceinline__ void lay_out(const GroupArgs& a, const int* totals, int* warp_sums) {
  int start = 0, tile = 0, tile_rows = (int)a.tile_rows;
  for (int first = 0; first < a.experts; first += 1024) {
    int e = first + threadIdx.x;
    int count = e < a.experts ? totals[e] : 0;
    int rows, tiles;
    int row = start + sum_before(count, warp_sums, &rows);
    int at = tile + sum_before((count + tile_rows - 1) / tile_rows, warp_sums, &tiles);
    if (e < a.experts) a.starts[e] = row;
    for (int r = 0; r < count; r += tile_rows, at++) {
      a.tiles[2 * at] = e;
      a.tiles[2 * at + 1] = row + r;
    }
    start += rows;
    tile += tiles;
  }
  if (threadIdx.x == 0) a.starts[a.experts] = start;
  for (int i = tile + threadIdx.x; i < a.tiles_max; i += 1024) a.tiles[2 * i] = -1;
}

__device__ __forceinline__ void put_slot(const GroupArgs& a, int place) {
  i64 slot = (i64)blockIdx.x * 1024 + threadIdx.x;
  a.places[slot] = place;
  a.sources[place] = (int)(slot / a.per_token);
}

// Shared memory of the four kernels: `totals` [experts] int, then `before`.

/** Sorts the slots by expert, in their order within each; alone, if there are at most 1,024. */
extern "C" __global__ void __launch_bounds__(1024) group_rows(const __grid_constant__ GroupArgs a) {
  extern __shared__ int totals[];
  __shared__ int warp_sums[32];
  int rank, expert = rank_slot(a, (u16*)(totals + a.experts), totals, rank);
  lay_out(a, totals, warp_sums);
  __syncthreads();
  if (expert >= 0) put_slot(a, a.starts[expert] + rank);
}

/** Otherwise in three steps: a block a chunk, one block, a block a chunk. */
extern "C" __global__ void __launch_bounds__(1024)
group_count(const __grid_constant__ GroupArgs a) {
  extern __shared__ int totals[];
  int rank;
  rank_slot(a, (u16*)(totals + a.experts), totals, rank);
  for (int e = threadIdx.x; e < a.experts; e += 1024) {
    a.counts[blockIdx.x * a.experts + e] = totals[e];
  }
}

extern "C" __global__ void __launch_bounds__(1024)
group_starts(const __grid_constant__ GroupArgs a) {
  extern __shared__ int totals[];
  __shared__ int warp_sums[32];
  for (int e = threadIdx.x; e < a.experts; e += 1024) {
    int sum = 0;
    for (i64 first = 0; first < a.chunks; first += 8) {
      int counts[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        counts[i] = first + i < a.chunks ? a.counts[(first + i) * a.experts + e] : 0;
      }
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (first + i < a.chunks) a.counts[(first + i) * a.experts + e] = sum;
        sum += counts[i];
      }
    }
    totals[e] = sum;
  }
  __syncthreads();
  lay_out(a, totals, warp_sums);
}

extern "C" __global__ void __launch_bounds__(1024)
group_place(const __grid_constant__ GroupArgs a) {
  extern __shared__ int totals[];
  int rank, expert = rank_slot(a, (u16*)(totals + a.experts), totals, rank);
  if (expert < 0) return;
  put_slot(a, a.starts[expert] + a.counts[blockIdx.x * a.experts + expert] + rank);
}

struct CombineArgs {
  activation* out;
  i64 out_stride;
  const activation* shared;
  i64 shared_stride;
  const activation* routed;  // [slots, routed_stride] in the order of places
  i64 routed_stride;
  const int* places;     // [rows, per_token]
  const float* weights;  // [rows, per_token]
  i64 per_token, columns;
};

/** out = sum of weight * routed in the order of the routing, then shared; one rounding. */
extern "C" __global__ void combine(const __grid_constant__ CombineArgs a) {
  i64 row = blockIdx.x;
  int columns = (int)a.columns, c = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (c >= columns) return;
  float total[8] = {}, v[8];
  for (i64 i = row * a.per_token; i < (row + 1) * a.per_token; i++) {
    float weight = a.weights[i];
    load_eight(a.routed + a.places[i] * a.routed_stride, c, columns, v);
#pragma unroll
    for (int j = 0; j < 8; j++) total[j] += weight * v[j];
  }
  load_eight(a.shared + row * a.shared_stride, c, columns, v);
#pragma unroll
  for (int j = 0; j < 8; j++) total[j] += v[j];
  store_eight(a.out + row * a.out_stride, c, columns, total);
}
