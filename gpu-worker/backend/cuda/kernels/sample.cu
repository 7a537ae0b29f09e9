// One token from each row of logits, as draw.ts draws it, to the bit: weights are integers whose
// sums are exact, so that sums over threads, in whatever order, are the sums of the cpu backend.
//
// Sums on paper, vocabulary 129,280: a row is 517 KB, which one SM reads from the L2 cache
// in about 5 us; a weight takes some 40 operations in float64, of which it does 64 a cycle: 50 us a
// row. Rows run side by side. So greedy rows cost one reading, drawn ones one pass of weights and a
// few readings, far below one layer of the model; a row more than a block is not worth splitting.

struct SampleDraw {
  double temperature, top_p, min_weight, unit;
  i64 top_k;
};

struct SampleArgs {
  const float* logits;  // [rows, stride], rows start at 16 bytes
  i64 stride, vocab;
  const SampleDraw* draws;  // [rows]
  int* tokens;              // [rows], -1 where a row is no distribution
  i64 scale;                // the weight of the most likely token
};

#define kThreads 1024
#define kWarps 32
#define kTile 4096       // tokens of a tile: four a thread
#define kTilesMax 256    // vocabularies of a million
#define kBinCount 2048
#define kCandidates 1024
#define kExponentMin -30.0

/**
 * e^x * scale as an integer, for x <= 0: scaledExp of draw.ts, the same operations in its order.
 */
__device__ __forceinline__ u64 scaled_exp(double x, double scale) {
  if (!(x > kExponentMin)) return 0;
  double n = floor(x * 1.4426950408889634 + 0.5);
  double r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
  double series = 1.0 / 6227020800.0;
  series = 1.0 / 479001600.0 + r * series;
  series = 1.0 / 39916800.0 + r * series;
  series = 1.0 / 3628800.0 + r * series;
  series = 1.0 / 362880.0 + r * series;
  series = 1.0 / 40320.0 + r * series;
  series = 1.0 / 5040.0 + r * series;
  series = 1.0 / 720.0 + r * series;
  series = 1.0 / 120.0 + r * series;
  series = 1.0 / 24.0 + r * series;
  series = 1.0 / 6.0 + r * series;
  series = 0.5 + r * series;
  series = 1.0 + r * series;
  series = 1.0 + r * series;
  double power = __hiloint2double(((int)n + 1023) << 20, 0);
  return (u64)floor(series * (power * scale) + 0.5);
}

/** Place in the order of tokens, less is earlier: score descending, then index; -0 counts as +0. */
__device__ __forceinline__ u64 place_of(float score, int token) {
  u32 bits = __float_as_uint(score + 0.f);
  u32 ascending = bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
  return (u64)~ascending << 32 | (u32)token;
}

__device__ __forceinline__ u64 warp_sum(u64 x) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

/** Sum over the block, returned to all; `scratch` [kWarps] in shared memory. */
__device__ __forceinline__ u64 block_sum(u64 x, u64* scratch) {
  x = warp_sum(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  return warp_sum(scratch[threadIdx.x & 31]);
}

/** Sum over the threads before this one; `scratch` [kWarps] in shared memory. */
__device__ __forceinline__ u64 sum_before(u64 x, u64* scratch) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  u64 sum = x;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    u64 other = __shfl_up_sync(0xffffffffu, sum, d);
    if (lane >= d) sum += other;
  }
  __syncthreads();
  if (lane == 31) scratch[warp] = sum;
  __syncthreads();
  u64 before = sum - x;
  for (int w = 0; w < warp; w++) before += scratch[w];
  return before;
}

struct SampleShared {
  u64 sums[kWarps];
  u64 tiles[kTilesMax];  // weight of each tile
  u64 places[kCandidates];
  u64 weights[kCandidates];
  u32 counts[kBinCount];
  u32 mass_low[kBinCount], mass_high[kBinCount];
  u64 best[kWarps];
  u64 bound;
  u64 kept;
  u32 bin, bin_count, candidates;
  u64 count_before, mass_before;
  float least[kWarps];
  int token;
};

/** The part of a row that its passes look at. */
struct Row {
  const float* logits;
  int vocab;
  float best;
  double temperature, scale;

  __device__ __forceinline__ double exponent(float score) const {
    return ((double)score - (double)best) / temperature;
  }
  __device__ __forceinline__ u64 weight(float score) const {
    return scaled_exp(exponent(score), scale);
  }
  /** Calls `look(token, score)` for this thread's four tokens of a tile. */
  template <typename Look>
  __device__ __forceinline__ void four(int tile, Look look) const {
    int first = tile * kTile + threadIdx.x * 4;
    if (first >= vocab) return;
    float4 scores = *(const float4*)(logits + first);
    float values[4] = {scores.x, scores.y, scores.z, scores.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (first + i < vocab) look(first + i, values[i]);
    }
  }
  template <typename Look>
  __device__ __forceinline__ void all(Look look) const {
    int tiles = (vocab + kTile - 1) / kTile;
#pragma unroll 4
    for (int tile = 0; tile < tiles; tile++) four(tile, look);
  }
};

/**
 * The place of the last token of the shortest prefix of the order that has `count` tokens or weighs
 * `mass`, over the tokens with a weight; all of them where neither is reached. `kept` gets its
 * weight.
 */
__device__ u64 select_prefix(const Row& row, SampleShared& s, double factor, u64 count,
                             double mass) {
  int t = threadIdx.x;
  auto enough = [&](u64 tokens, u64 weight) {
    return tokens > 0 && (tokens >= count || (double)weight >= mass);
  };
  // The first bin at whose end there is enough. Thread t takes the bins 2t and 2t + 1.
  u64 counts[2], masses[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    counts[i] = s.counts[2 * t + i];
    masses[i] = (u64)s.mass_high[2 * t + i] << 32 | s.mass_low[2 * t + i];
  }
  u64 tokens = sum_before(counts[0] + counts[1], s.sums);
  u64 weight = sum_before(masses[0] + masses[1], s.sums);
  if (t == 0) {
    s.bin = kBinCount;
    s.bound = ~0ull;
    s.candidates = 0;
  }
  if (t == kThreads - 1) s.kept = weight + masses[0] + masses[1];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (!enough(tokens, weight) && enough(tokens + counts[i], weight + masses[i])) {
      s.bin = 2 * t + i;
      s.bin_count = (u32)counts[i];
      s.count_before = tokens;
      s.mass_before = weight;
    }
    tokens += counts[i];
    weight += masses[i];
  }
  __syncthreads();
  if (s.bin == kBinCount) return ~0ull;
  int bin = s.bin;
  auto bin_of = [&](double x) { return min((int)(-x * factor), kBinCount - 1); };

  if (s.bin_count <= kCandidates) {
    row.all([&](int token, float score) {
      double x = row.exponent(score);
      if (!(x > kExponentMin) || bin_of(x) != bin) return;
      u64 own = scaled_exp(x, row.scale);
      if (own == 0) return;
      u32 at = atomicAdd(&s.candidates, 1);
      s.places[at] = place_of(score, token);
      s.weights[at] = own;
    });
    __syncthreads();
    u32 size = s.candidates;
    for (u32 i = t; i < size; i += kThreads) {
      u64 before = s.count_before, heavy = s.mass_before, place = s.places[i];
      for (u32 j = 0; j < size; j++) {
        if (s.places[j] >= place) continue;
        before++;
        heavy += s.weights[j];
      }
      if (!enough(before, heavy) && enough(before + 1, heavy + s.weights[i])) {
        s.bound = place;
        s.kept = heavy + s.weights[i];
      }
    }
    __syncthreads();
    return s.bound;
  }

  // Too many tokens within one bin to compare pairwise: bisect the order, a bit at a time.
  u64 low = 0, high = ~0ull;  // the place lies in (low - 1, high]
  u64 kept = s.kept;
  while (low < high) {
    u64 middle = low + (high - low) / 2;
    u64 some = 0, heavy = 0;
    row.all([&](int token, float score) {
      if (place_of(score, token) > middle) return;
      u64 own = row.weight(score);
      some += own > 0;
      heavy += own;
    });
    some = block_sum(some, s.sums);
    heavy = block_sum(heavy, s.sums);
    if (enough(some, heavy)) {
      high = middle;
      kept = heavy;
    } else {
      low = middle + 1;
    }
  }
  __syncthreads();
  if (t == 0) {
    s.bound = high;
    s.kept = kept;
  }
  __syncthreads();
  return high;
}

extern "C" __global__ void __launch_bounds__(kThreads)
sample(const __grid_constant__ SampleArgs a) {
  __shared__ SampleShared s;
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  SampleDraw draw = a.draws[blockIdx.x];
  Row row = {a.logits + blockIdx.x * a.stride, (int)a.vocab, 0.f, draw.temperature,
             (double)a.scale};
  int tiles = (row.vocab + kTile - 1) / kTile;

  // The first of the order, and whether the row is a distribution.
  u64 first = ~0ull;
  bool nan = false;
  float least = __int_as_float(0x7f800000);
  row.all([&](int token, float score) {
    nan |= score != score;
    least = fminf(least, score);
    first = min(first, place_of(score, token));
  });
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) first = min(first, __shfl_xor_sync(0xffffffffu, first, d));
  least = -warp_max(-least);
  if (lane == 0) {
    s.best[warp] = first;
    s.least[warp] = least;
  }
  nan = __syncthreads_or(nan);
  for (int w = 0; w < kWarps; w++) {
    first = min(first, s.best[w]);
    least = fminf(least, s.least[w]);
  }
  int best = (int)(u32)first;
  row.best = row.logits[best];
  if (nan || !(fabsf(row.best) <= 3.402823466e38f)) {
    if (t == 0) a.tokens[blockIdx.x] = -1;
    return;
  }
  if (draw.temperature == 0.0) {
    if (t == 0) a.tokens[blockIdx.x] = best;
    return;
  }

  // Weights: their sums by tile, and by even bins of the exponent where a filter looks for a bound.
  bool limits_count = draw.top_k > 0 && draw.top_k < a.vocab;
  bool filters = limits_count || draw.top_p < 1.0;
  double lowest = fmax(row.exponent(least), kExponentMin);
  // If all scores are equal there is one bin.
  double factor = lowest < 0.0 ? fmin(kBinCount / -lowest, 1e300) : 0.0;
  for (int i = t; i < kBinCount; i += kThreads) s.counts[i] = s.mass_low[i] = s.mass_high[i] = 0;
  for (int i = t; i < tiles; i += kThreads) s.tiles[i] = 0;
  __syncthreads();
  for (int tile = 0; tile < tiles; tile++) {
    u64 sum = 0;
    row.four(tile, [&](int, float score) {
      double x = row.exponent(score);
      u64 weight = scaled_exp(x, row.scale);
      if (weight == 0) return;
      sum += weight;
      if (!filters) return;
      int bin = min((int)(-x * factor), kBinCount - 1);
      atomicAdd(&s.counts[bin], 1);
      // 64 bits in two words: whoever carries over, carries.
      u32 low = (u32)weight, old = atomicAdd(&s.mass_low[bin], low);
      u32 carry = (u32)(weight >> 32) + (old + low < old);
      if (carry > 0) atomicAdd(&s.mass_high[bin], carry);
    });
    sum = warp_sum(sum);
    if (lane == 0 && sum > 0) atomicAdd(&s.tiles[tile], sum);
  }
  __syncthreads();

  // The tokens that top_k and then top_p keep end at this place of the order.
  u64 bound = ~0ull;
  if (filters) {
    u64 total = 0;
    for (int i = lane; i < tiles; i += 32) total += s.tiles[i];
    total = warp_sum(total);
    if (limits_count) {
      bound = select_prefix(row, s, factor, (u64)draw.top_k,
                            __longlong_as_double(0x7ff0000000000000ll));
      total = s.kept;
      __syncthreads();
    }
    if (draw.top_p < 1.0) bound = select_prefix(row, s, factor, ~0ull, draw.top_p * (double)total);
  }
  auto kept_weight = [&](int token, float score) -> u64 {
    if (place_of(score, token) > bound) return 0;
    u64 weight = row.weight(score);
    return (double)weight < draw.min_weight ? 0 : weight;
  };
  if (filters || draw.min_weight > 0.0) {
    __syncthreads();
    for (int i = t; i < tiles; i += kThreads) s.tiles[i] = 0;
    __syncthreads();
    for (int tile = 0; tile < tiles; tile++) {
      u64 sum = 0;
      row.four(tile, [&](int token, float score) { sum += kept_weight(token, score); });
      sum = warp_sum(sum);
      if (lane == 0 && sum > 0) atomicAdd(&s.tiles[tile], sum);
    }
    __syncthreads();
  }

  // The token at which the running sum in index order passes the target.
  u64 kept = 0;
  for (int i = lane; i < tiles; i += 32) kept += s.tiles[i];
  kept = warp_sum(kept);
  // If the product is rounded up to all of the weight, the last token is meant.
  double target = fmin(draw.unit * (double)kept, (double)(kept - 1));
  u64 passed = 0;
  int tile = 0;
  while (tile < tiles - 1 && !((double)(passed + s.tiles[tile]) > target)) {
    passed += s.tiles[tile++];
  }
  u64 weights[4] = {};
  int own = tile * kTile + t * 4;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (own + i < row.vocab) weights[i] = kept_weight(own + i, row.logits[own + i]);
  }
  passed += sum_before(weights[0] + weights[1] + weights[2] + weights[3], s.sums);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    u64 after = passed + weights[i];
    if (weights[i] > 0 && !((double)passed > target) && (double)after > target) {
      a.tokens[blockIdx.x] = own + i;
    }
    passed = after;
  }
}
