// The lightning indexer (engine-spec 6): scores of all tokens that a row sees, then the exact top of
// each row. Scores live in a buffer of fixed size; the host takes as many rows at a time as fit.

struct ScoreArgs {
  const u8* keys;  // pages
  i64 page_bytes, format, dim, heads;
  const activation* queries;  // [rows, query_stride], heads * dim
  i64 query_stride;
  const float* weights;  // [rows, weight_stride]
  i64 weight_stride;
  const int* positions;    // [rows]
  const int* tables;       // block tables
  const i64* table_start;  // [rows] first entry of the row's table
  float* scores;           // [rows of the chunk, score_stride]
  i64 score_stride, first_row, width;
  real head_scale, dim_scale;  // heads^-0.5, dim^-0.5
};

/** Tokens of a block: few, since in a decode step of a small model they are all there is to spread. */
#define kPlainSpan 128

/**
 * Any shape, in float32: a block takes one row and 128 tokens, a token a thread; queries
 * [heads][dim] and weights [heads] lie in shared memory, quantised if the keys are.
 */
extern "C" __global__ void __launch_bounds__(128) index_scores(const __grid_constant__ ScoreArgs a) {
  extern __shared__ float shared[];
  i64 row = a.first_row + blockIdx.y;
  int position = a.positions[row];
  if (position < a.width) return;  // all its tokens are selected without scores
  int start = blockIdx.x * kPlainSpan;
  if (start > position) return;
  int dim = (int)a.dim, heads = (int)a.heads;
  float* q = shared;
  float* w = shared + heads * dim;
  bool fp8 = a.format == kDtypeE4m3;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int h = warp; h < heads; h += 4) {
    const activation* from = a.queries + row * a.query_stride + h * dim;
    float weight = a.weights[row * a.weight_stride + h] * a.head_scale.v;
    float scale = 1.f;
    if (fp8) {
      float amax = 0.f;
      for (int d = lane; d < dim; d += 32) amax = fmaxf(amax, fabsf(load(from + d)));
      scale = group_scale(warp_max(amax), true);
      weight *= scale;
    }
    for (int d = lane; d < dim; d += 32) {
      q[h * dim + d] = fp8 ? e4m3_value(e4m3_code(load(from + d) / scale)) : load(from + d);
    }
    if (lane == 0) w[h] = weight * a.dim_scale.v;
  }
  __syncthreads();

  const int* table = a.tables + a.table_start[row];
  int token = start + threadIdx.x;
  if (token > position) return;
  const u8* page = a.keys + (i64)table[token >> 6] * a.page_bytes;
  float score = 0.f;
  const u8* codes = page + (token & 63) * dim;
  const float* values = (const float*)page + (token & 63) * dim;
  for (int h = 0; h < heads; h++) {
    float dot = 0.f;
    const float* query = q + h * dim;
    if (fp8) {
#pragma unroll 16
      for (int d = 0; d < dim; d++) dot = dot + query[d] * e4m3_value(codes[d]);
    } else {
#pragma unroll 16
      for (int d = 0; d < dim; d++) dot = dot + query[d] * values[d];
    }
    score = score + w[h] * fmaxf(dot, 0.f);
  }
  if (fp8) score *= ((const float*)(page + dim * 64))[token & 63];
  a.scores[blockIdx.y * a.score_stride + token] = score;
}

struct IndexQueryArgs {
  u8* codes;       // [rows, heads, 128] e4m3
  float* weights;  // [rows, heads], the queries' scales and both constants folded in
  const activation* queries;
  i64 query_stride;
  const float* head_weights;
  i64 weight_stride, heads;
  real head_scale, dim_scale;
  i64 first_row;
};

/** Queries of 128 as the sm90 kernel reads them: a warp a head, four values a lane. */
extern "C" __global__ void index_queries(const __grid_constant__ IndexQueryArgs a) {
  i64 local = blockIdx.y, row = a.first_row + local;
  int head = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (head >= a.heads) return;
  const activation* x = a.queries + row * a.query_stride + head * 128 + lane * 4;
  float values[4] = {load(x), load(x + 1), load(x + 2), load(x + 3)};
  float amax = fmaxf(fmaxf(fabsf(values[0]), fabsf(values[1])), fmaxf(fabsf(values[2]), fabsf(values[3])));
  float scale = group_scale(warp_max(amax), true);
  u32 codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) codes |= e4m3_code(values[i] / scale) << (8 * i);
  *(u32*)(a.codes + (local * a.heads + head) * 128 + lane * 4) = codes;
  if (lane == 0) {
    float weight = a.head_weights[row * a.weight_stride + head] * a.head_scale.v;
    a.weights[local * a.heads + head] = weight * scale * a.dim_scale.v;
  }
}

struct TopKArgs {
  const float* scores;
  i64 score_stride, first_row, width;
  const int* positions;
  int* selected;  // [rows, width], ascending
  int* counts;    // [rows]
  int* not_a_number;
};

#define kTopThreads 1024
#define kBins 2048
/** Tokens in the bin of the threshold that are sorted out in shared memory. */
#define kCandidatesMax 4096

/** Floats to integers of the same order; -0 counts as +0. */
__device__ __forceinline__ u32 order_key(float score) {
  u32 bits = __float_as_uint(score + 0.f);
  return bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
}

/**
 * The bin from the top in which the `wanted`-th largest lies, how many of it are wanted and how many
 * it has: found[0], found[1], found[2].
 */
__device__ __forceinline__ void find_bin(const u32* histogram, u32* warp_sums, u32 wanted, u32* found) {
  // Thread t takes the bins 2t and 2t + 1 counted from the top.
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  u32 high = histogram[kBins - 1 - 2 * t], low = histogram[kBins - 2 - 2 * t];
  u32 sum = high + low, before = sum;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    u32 other = __shfl_up_sync(0xffffffffu, before, d);
    if (lane >= d) before += other;
  }
  if (lane == 31) warp_sums[warp] = before;
  __syncthreads();
  u32 offset = 0;
  for (int i = 0; i < warp; i++) offset += warp_sums[i];
  before += offset - sum;
  if (before < wanted && before + high >= wanted) {
    found[0] = kBins - 1 - 2 * t;
    found[1] = wanted - before;
    found[2] = high;
  } else if (before + high < wanted && before + sum >= wanted) {
    found[0] = kBins - 2 - 2 * t;
    found[1] = wanted - before - high;
    found[2] = low;
  }
  __syncthreads();
}

/** Bins of equal width from the least to the greatest score: monotone, so exact however it rounds. */
__device__ __forceinline__ u32 linear_bin(float score, float least, float factor) {
  return (u32)min(max((int)((score - least) * factor), 0), kBins - 1);
}

/**
 * Exact top-k of one row: score descending, index ascending on ties, stored in ascending order.
 *
 * One pass finds the least and the greatest score, one counts bins of equal width between them, which
 * a bell of scores fills evenly where the bits of floats would crowd a few. If the bin of the
 * threshold is small, its keys are compared one by one in shared memory; else histograms of the
 * floats' bits, 11, 11 and 10, find the key. A last ascending pass keeps what is above the key and
 * the first ones equal to it. Integer counts make it deterministic, however the atomics fall.
 *
 * Top 2,048 of 131,072 on one H200: bits alone, 64 rows 0.348 ms, 2.5 us a row at 512 rows; even bins
 * first, 0.105 ms and 0.81 us: 3.3 ms for 4,096 rows, where one reading alone takes 0.5 ms.
 */
extern "C" __global__ void __launch_bounds__(kTopThreads) top_k(const __grid_constant__ TopKArgs a) {
  __shared__ u32 histogram[kBins];
  __shared__ u32 candidates[kCandidatesMax];
  __shared__ u32 warp_sums[32], found[3], candidate_count;
  __shared__ float least_of[33], greatest_of[33];
  i64 row = a.first_row + blockIdx.x;
  int width = (int)a.width;
  int count = a.positions[row] + 1;
  int* out = a.selected + row * width;
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  if (t == 0) a.counts[row] = min(count, width);
  if (count <= width) {
    for (int i = t; i < count; i += kTopThreads) out[i] = i;
    return;
  }
  const float* scores = a.scores + blockIdx.x * a.score_stride;
  // Rows of scores start at multiples of 1,024 floats, so four are read at a time.
  const float4* fours = (const float4*)scores;
  int whole = count / 4;

  float least = __int_as_float(0x7f800000), greatest = minus_infinity();
  bool nan = false;
  auto look = [&](float score) {
    nan |= score != score;
    least = fminf(least, score);
    greatest = fmaxf(greatest, score);
  };
#pragma unroll 4
  for (int i = t; i < whole; i += kTopThreads) {
    float4 four = fours[i];
    look(four.x), look(four.y), look(four.z), look(four.w);
  }
  if (t < count - whole * 4) look(scores[whole * 4 + t]);
  if (nan) *a.not_a_number = 1;
  least = -warp_max(-least);
  greatest = warp_max(greatest);
  if (lane == 0) {
    least_of[warp] = least;
    greatest_of[warp] = greatest;
  }
  for (int i = t; i < kBins; i += kTopThreads) histogram[i] = 0;
  if (t == 0) candidate_count = 0;
  __syncthreads();
  for (int w = 0; w < 32; w++) {
    least = fminf(least, least_of[w]);
    greatest = fmaxf(greatest, greatest_of[w]);
  }
  float factor = fminf((float)kBins / (greatest - least), 3.0e38f);

#pragma unroll 4
  for (int i = t; i < whole; i += kTopThreads) {
    float4 four = fours[i];
    atomicAdd(&histogram[linear_bin(four.x, least, factor)], 1);
    atomicAdd(&histogram[linear_bin(four.y, least, factor)], 1);
    atomicAdd(&histogram[linear_bin(four.z, least, factor)], 1);
    atomicAdd(&histogram[linear_bin(four.w, least, factor)], 1);
  }
  if (t < count - whole * 4) atomicAdd(&histogram[linear_bin(scores[whole * 4 + t], least, factor)], 1);
  __syncthreads();
  find_bin(histogram, warp_sums, width, found);
  u32 bin = found[0], wanted = found[1], inside = found[2];

  u32 threshold = 0;
  if (inside <= kCandidatesMax && !nan) {
    auto keep = [&](float score) {
      if (linear_bin(score, least, factor) == bin) {
        candidates[atomicAdd(&candidate_count, 1)] = order_key(score);
      }
    };
#pragma unroll 4
    for (int i = t; i < whole; i += kTopThreads) {
      float4 four = fours[i];
      keep(four.x), keep(four.y), keep(four.z), keep(four.w);
    }
    if (t < count - whole * 4) keep(scores[whole * 4 + t]);
    __syncthreads();
    // The key with fewer than `wanted` above it and, with its equals, at least as many.
    for (u32 i = t; i < inside; i += kTopThreads) {
      u32 key = candidates[i], above = 0, equal = 0;
      for (u32 j = 0; j < inside; j++) {
        above += candidates[j] > key;
        equal += candidates[j] == key;
      }
      if (above < wanted && above + equal >= wanted) {
        found[0] = key;
        found[1] = wanted - above;
      }
    }
    __syncthreads();
    threshold = found[0];
    wanted = found[1];
  } else {
    wanted = width;
    for (int pass = 0; pass < 3; pass++) {
      int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
      u32 mask = pass == 2 ? 1023 : 2047;
      int above = pass == 1 ? 21 : 10;
      for (int i = t; i < kBins; i += kTopThreads) histogram[i] = 0;
      __syncthreads();
      for (int i = t; i < count; i += kTopThreads) {
        u32 key = order_key(scores[i]);
        if (pass == 0 || key >> above == threshold) atomicAdd(&histogram[(key >> shift) & mask], 1);
      }
      __syncthreads();
      find_bin(histogram, warp_sums, wanted, found);
      threshold = pass == 2 ? (threshold << 10) | found[0] : (threshold << 11) | found[0];
      wanted = found[1];
      __syncthreads();
    }
  }

  // Ascending: each round places 4,096 tokens behind those of the rounds before, four a thread.
  u32 placed = 0, equal_left = wanted;
  for (int start = 0; start < count; start += 4 * kTopThreads) {
    int first = start + 4 * t;
    u32 keys[4];
    u32 above = 0, equal = 0;
    float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
    if (first < count) four = fours[first / 4];
    float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      keys[i] = order_key(values[i]);
      bool valid = first + i < count;
      above += valid && keys[i] > threshold;
      equal += valid && keys[i] == threshold;
    }
    // Both counts in one word: at most 4,096 of each.
    u32 both = above | equal << 16, sum = both;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      u32 other = __shfl_up_sync(0xffffffffu, sum, d);
      if (lane >= d) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    u32 before = sum - both, all = 0;
    for (int w = 0; w < 32; w++) {
      if (w < warp) before += warp_sums[w];
      all += warp_sums[w];
    }
    u32 above_before = before & 0xffff, equal_before = before >> 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (first + i >= count) break;
      bool is_above = keys[i] > threshold, is_equal = keys[i] == threshold;
      if (is_above || (is_equal && equal_before < equal_left)) {
        out[placed + above_before + min(equal_before, equal_left)] = first + i;
      }
      above_before += is_above;
      equal_before += is_equal;
    }
    u32 equal_taken = min(all >> 16, equal_left);
    placed += (all & 0xffff) + equal_taken;
    equal_left -= equal_taken;
    __syncthreads();
  }
}
