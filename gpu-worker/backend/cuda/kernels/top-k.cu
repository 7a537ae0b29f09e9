// The exact top of each row of scores: score descending, index ascending on ties. Beside the scores
// lie the greatest ones of every 16 tokens, which tell where to look. Sums and ladder: top-k.md.

/** Adjacent tokens whose greatest score is kept. */
#define kGroup 16

struct GroupMaximaArgs {
  const float* scores;  // [rows of the chunk, score_stride]
  i64 score_stride, first_row, width;
  const int* positions;
  float* maxima;  // [rows of the chunk, score_stride / 16]
};

/** For scores whose kernel leaves no maxima: a group of a row a thread. */
extern "C" __global__ void group_maxima(const __grid_constant__ GroupMaximaArgs a) {
  i64 local = blockIdx.y, group = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  int position = a.positions[a.first_row + local], first = (int)group * kGroup;
  if (position < a.width || first > position) return;
  const float4* fours = (const float4*)(a.scores + local * a.score_stride + first);
  float greatest = minus_infinity();
#pragma unroll
  for (int i = 0; i < kGroup / 4; i++) {
    float4 four = fours[i];
    float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (first + 4 * i + j <= position) greatest = fmaxf(greatest, values[j]);
    }
  }
  a.maxima[local * (a.score_stride / kGroup) + group] = greatest;
}

struct TopKArgs {
  const float* scores;  // [rows of the chunk, score_stride], 1,024 to a multiple of it
  const float* maxima;  // [rows of the chunk, score_stride / 16]
  i64 score_stride, first_row, width, window;
  const int* positions;
  int* selected;  // [rows, width], ascending
  int* counts;    // [rows]
};

#ifndef kTopThreads
#define kTopThreads 512
#endif
#define kBins 2048
/** Tokens that are sorted out in shared memory, and groups whose tokens are read on their own. */
#define kListMax 4096
#define kGroupsMax 4096
/** Groups at the threshold of the maxima that may be read for nothing. */
#define kSlack 256

/** Floats to integers of the same order; -0 counts as +0. */
__device__ __forceinline__ u32 order_key(float score) {
  u32 bits = __float_as_uint(score + 0.f);
  return bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
}

/** Keys [low, high], in which the `wanted`-th largest of all lies; `inside` keys are there. */
struct KeyRange {
  u32 low, high, wanted, inside;
};

/** The first of `count` places behind a shared counter; all lanes of a warp call it together. */
__device__ __forceinline__ u32 reserve(u32* counter, u32 count) {
  int lane = threadIdx.x & 31;
  u32 sum = count;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    u32 other = __shfl_up_sync(0xffffffffu, sum, d);
    if (lane >= d) sum += other;
  }
  u32 start = 0;
  if (lane == 31 && sum > 0) start = atomicAdd(counter, sum);
  return __shfl_sync(0xffffffffu, start, 31) + sum - count;
}

/**
 * Narrows the range to one of 2,048 bins of equal width. `each` gives every key to a function; the
 * bins begin at `guess`, the first also takes what is below, so a guess costs a round if it is bad.
 */
template <typename Each>
__device__ __forceinline__ void narrow(KeyRange& range, u32 guess, u32* histogram, u32* scratch,
                                       Each each) {
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  guess = min(max(guess, range.low), range.high);
  u32 low = range.low, high = range.high;
  u32 shift = max(21 - __clz(high - guess), 0);
  for (int i = t; i < kBins; i += kTopThreads) histogram[i] = 0;
  __syncthreads();
  each([&](u32 key) {
    if (key >= low && key <= high) {
      atomicAdd(&histogram[key < guess ? 0 : (key - guess) >> shift], 1);
    }
  });
  __syncthreads();
  // Each thread takes some bins, counted from the top.
  constexpr int kEach = kBins / kTopThreads;
  u32 counts[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; i++) sum += counts[i] = histogram[kBins - 1 - (t * kEach + i)];
  u32 before = sum;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    u32 other = __shfl_up_sync(0xffffffffu, before, d);
    if (lane >= d) before += other;
  }
  if (lane == 31) scratch[warp] = before;
  __syncthreads();
  before += __reduce_add_sync(0xffffffffu, lane < warp ? scratch[lane] : 0) - sum;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    if (before < range.wanted && before + counts[i] >= range.wanted) {
      scratch[32] = kBins - 1 - (t * kEach + i);
      scratch[33] = range.wanted - before;
      scratch[34] = counts[i];
    }
    before += counts[i];
  }
  __syncthreads();
  u32 bin = scratch[32];
  range.wanted = scratch[33];
  range.inside = scratch[34];
  if (bin > 0) range.low = guess + (bin << shift);
  range.high = guess + min(((bin + 1) << shift) - 1, high - guess);
  __syncthreads();
}

/**
 * Exact top-k of one row: score descending, index ascending on ties, stored in ascending order.
 *
 * With more groups of 16 than tokens wanted, the wanted-th greatest of the groups' maxima is a
 * bound: that many tokens are not below it, so none below it is selected, and only groups that
 * reach it are read. What is not below the bound goes to a list in shared memory; if that
 * overflows, a histogram of all tokens makes the range of keys smaller first. The threshold is
 * found within the list, and the selected are set as bits, from which they are written in order.
 * Every step counts in integers, so the result does not depend on how atomics fall.
 */
extern "C" __global__ void __launch_bounds__(kTopThreads)
top_k(const __grid_constant__ TopKArgs a) {
  extern __shared__ __align__(16) u32 shared[];
  u32* histogram = shared;
  u32* list_keys = histogram + kBins;
  u32* list_tokens = list_keys + kListMax;
  u32* groups = list_tokens + kListMax;
  u32* above_bits = groups + kGroupsMax;
  int window = (int)a.window, words = window / 32;
  u32* equal_bits = above_bits + words;
  __shared__ u32 scratch[35], list_count, group_count;
  i64 row = a.first_row + blockIdx.x;
  int width = (int)a.width, count = a.positions[row] + 1;
  int* out = a.selected + row * width;
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  if (t == 0) a.counts[row] = min(count, width);
  if (count <= width) {
    for (int i = t; i < count; i += kTopThreads) out[i] = i;
    return;
  }

  // The least and the greatest maximum.
  const float* scores = a.scores + blockIdx.x * a.score_stride;
  const float4* maxima = (const float4*)(a.maxima + blockIdx.x * (a.score_stride / kGroup));
  int group_end = (count + kGroup - 1) / kGroup, maxima_fours = (group_end + 3) / 4;
  auto each_four_maxima = [&](auto use) {
#pragma unroll 4
    for (int i = t; i < maxima_fours; i += kTopThreads) {
      float4 four = maxima[i];
      u32 keys[4] = {order_key(four.x), order_key(four.y), order_key(four.z), order_key(four.w)};
      use(keys, 4 * i);
    }
  };
  u32 least = 0xffffffffu, greatest = 0;
  each_four_maxima([&](const u32(&keys)[4], int first) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (first + j >= group_end) break;
      least = min(least, keys[j]);
      greatest = max(greatest, keys[j]);
    }
  });
  least = __reduce_min_sync(0xffffffffu, least);
  greatest = __reduce_max_sync(0xffffffffu, greatest);
  if (lane == 0) {
    histogram[warp] = least;
    histogram[32 + warp] = greatest;
  }
  if (t == 0) list_count = group_count = 0;
  for (int i = t; i < 2 * words; i += kTopThreads) above_bits[i] = 0;
  __syncthreads();
  bool has = lane < kTopThreads / 32;
  least = __reduce_min_sync(0xffffffffu, has ? histogram[lane] : 0xffffffffu);
  greatest = __reduce_max_sync(0xffffffffu, has ? histogram[32 + lane] : 0);
  __syncthreads();

  // The bound of the maxima and the groups that reach it.
  KeyRange range = {0, greatest, (u32)width, (u32)count};
  bool listed = false;
  if (group_end > width) {
    auto each_maximum = [&](auto use) {
      each_four_maxima([&](const u32(&keys)[4], int first) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (first + j < group_end) use(keys[j]);
        }
      });
    };
    KeyRange bound = {0, greatest, (u32)width, (u32)group_end};
    u32 guess = least;
    do {
      narrow(bound, guess, histogram, scratch, each_maximum);
      guess = bound.low;
    } while (bound.inside > kSlack && bound.low < bound.high);
    range.low = bound.low;
    range.inside = 0;  // unknown: most often the list takes them
    least = max(least, bound.low);
    listed = width - bound.wanted + bound.inside <= kGroupsMax;
    if (listed) {
      for (int start = 0; start < maxima_fours; start += kTopThreads) {
        int i = start + t;
        float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
        if (i < maxima_fours) four = maxima[i];
        float values[4] = {four.x, four.y, four.z, four.w};
        bool reach[4];
        u32 reaching = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          reach[j] = 4 * i + j < group_end && order_key(values[j]) >= bound.low;
          reaching += reach[j];
        }
        u32 place = reserve(&group_count, reaching);
#pragma unroll
        for (int j = 0; j < 4; j++) {
          if (reach[j]) groups[place++] = 4 * i + j;
        }
      }
      __syncthreads();
    }
  }

  // Four tokens at a time, whole warps together: use(keys, first token, how many are there).
  int fours = listed ? (int)group_count * (kGroup / 4) : (count + 3) / 4;
  auto each_four = [&](auto use) {
    constexpr int kAhead = 4;
    for (int start = 0; start < fours; start += kAhead * kTopThreads) {
      float4 loaded[kAhead];
      int first[kAhead];
#pragma unroll
      for (int n = 0; n < kAhead; n++) {
        int i = start + n * kTopThreads + t;
        first[n] = count;
        if (i < fours) first[n] = listed ? (int)groups[i >> 2] * kGroup + (i & 3) * 4 : i * 4;
        loaded[n] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (first[n] < count) loaded[n] = *(const float4*)(scores + first[n]);
      }
#pragma unroll
      for (int n = 0; n < kAhead; n++) {
        u32 keys[4] = {order_key(loaded[n].x), order_key(loaded[n].y), order_key(loaded[n].z),
                       order_key(loaded[n].w)};
        use(keys, first[n], count - first[n]);
      }
    }
  };
  auto each_token = [&](auto use) {
    each_four([&](const u32(&keys)[4], int, int left) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (j < left) use(keys[j]);
      }
    });
  };
  auto mark = [&](u32* bits, u32 token) { atomicOr(&bits[token >> 5], 1u << (token & 31)); };

  // Above the range: selected. Within: to the list, or, if they are all equal or all wanted,
  // marked.
  u32 guess = least;
  for (;;) {
    while (range.inside > kListMax && range.inside > range.wanted && range.low < range.high) {
      narrow(range, guess, histogram, scratch, each_token);
      guess = range.low;
    }
    bool settled = range.low == range.high || range.inside == range.wanted;
    each_four([&](const u32(&keys)[4], int first, int left) {
      u32 within[4], listing = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        bool here = j < left;
        within[j] = here && keys[j] >= range.low && keys[j] <= range.high;
        bool in_window = first + j < window;
        if (here && in_window && keys[j] > range.high) mark(above_bits, first + j);
        if (settled && within[j] && in_window) mark(equal_bits, first + j);
        listing += within[j];
      }
      if (settled || !__any_sync(0xffffffffu, listing > 0)) return;
      u32 place = reserve(&list_count, listing);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        if (!within[j]) continue;
        if (place < kListMax) list_keys[place] = keys[j], list_tokens[place] = first + j;
        place++;
      }
    });
    __syncthreads();
    u32 found = list_count;
    if (settled || found <= kListMax) {
      if (!settled) range.inside = found;
      break;
    }
    range.inside = found;
    __syncthreads();
    if (t == 0) list_count = 0;
    for (int i = t; i < 2 * words; i += kTopThreads) above_bits[i] = 0;
    __syncthreads();
  }
  u32 listed_tokens = list_count;
  while (range.low < range.high && range.inside > range.wanted) {
    narrow(range, guess, histogram, scratch, [&](auto use) {
      for (u32 i = t; i < listed_tokens; i += kTopThreads) use(list_keys[i]);
    });
    guess = range.low;
  }

  // Ascending: every window's bits in order, the first `wanted` of those in the range.
  u32 placed = 0, equal_left = range.wanted;
  for (int start = 0; start < count; start += window) {
    if (start == 0) {
      for (u32 i = t; i < listed_tokens; i += kTopThreads) {
        u32 key = list_keys[i], token = list_tokens[i];
        if (key < range.low || token >= window) continue;
        mark(key > range.high ? above_bits : equal_bits, token);
      }
    } else {
      for (int i = t; i < 2 * words; i += kTopThreads) above_bits[i] = 0;
      __syncthreads();
      each_four([&](const u32(&keys)[4], int first, int left) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int at = first + j - start;
          if (j >= left || at < 0 || at >= window || keys[j] < range.low) continue;
          mark(keys[j] > range.high ? above_bits : equal_bits, at);
        }
      });
    }
    __syncthreads();
    int own = (words + kTopThreads - 1) / kTopThreads;
    int from = min(t * own, words), end = min(from + own, words);
    u32 above = 0, equal = 0;
    for (int i = from; i < end; i++) above += __popc(above_bits[i]), equal += __popc(equal_bits[i]);
    u64 both = above | (u64)equal << 32, sum = both;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      u64 other = __shfl_up_sync(0xffffffffu, sum, d);
      if (lane >= d) sum += other;
    }
    u64* warp_sums = (u64*)histogram;
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    u64 before = sum - both, all = 0;
    for (int w = 0; w < kTopThreads / 32; w++) {
      u64 other = warp_sums[w];
      if (w < warp) before += other;
      all += other;
    }
    u32 above_before = (u32)before, equal_before = (u32)(before >> 32);
    for (int i = from; i < end; i++) {
      u32 higher = above_bits[i], bits = higher | equal_bits[i];
      while (bits) {
        u32 bit = bits & -bits;
        bits ^= bit;
        bool is_above = higher & bit;
        if (!is_above && equal_before >= equal_left) continue;
        u32 place = placed + above_before + min(equal_before, equal_left);
        if (place < width) out[place] = start + i * 32 + 31 - __clz(bit);
        above_before += is_above;
        equal_before += !is_above;
      }
    }
    u32 equal_taken = min((u32)(all >> 32), equal_left);
    placed += (u32)all + equal_taken;
    equal_left -= equal_taken;
    __syncthreads();
  }
}
