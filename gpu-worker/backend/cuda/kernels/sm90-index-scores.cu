// Scores of kHeads (64 or 32) index heads of 128 in fp8 on the tensor cores: I(t, s) = scale_s *
// sum_j w_j * max(0, q_j . k_s) (docs/engine-spec.md#indexer), for kQueries adjacent rows of one
// sequence at a time, and the greatest score of every 16 tokens. Sums and the ladder of versions:
// sm90-index-scores.md.
//
// A block is one warpgroup; it takes a span of pages of 64 keys. Bulk copies bring pages, scales
// and all, to a ring in shared memory, some ahead; from there a page's keys go to registers as the
// tensor cores' first operand, and their place is free again. A thread reads 16 bytes of a row at a
// time, so the dimensions are in another order than in the cache, and index_queries
// (index-scores.cu) puts the queries in the same one. Queries lie in shared memory as the second
// operand. While the unit works on one query's products, the block weighs and adds those of the
// query before; the sums over heads stay in registers. Their order is one for all kQueries.

// Two rows' queries of 32 heads lie side by side as one operand of 64 columns, so that eight rows
// share a page as four rows of 64 heads do.

#ifndef kHeads
#define kHeads 64
#endif
#ifndef kQueries
#define kQueries (256 / kHeads)
#endif
/** Queries of a product, and products of a page. */
#define kProductQueries (kQueries == 1 ? 1 : 64 / kHeads)
#define kProducts (kQueries / kProductQueries)
#define kProductRegisters (kHeads * kProductQueries / 2)
/** Queries whose sums four lanes share out, and how often they do so for a page. */
#define kSharedOut (kQueries == 1 ? 1 : 4)
#define kParts (kQueries / kSharedOut)
static_assert(kHeads == 64 || kHeads == 32, "heads fill a product's columns");
static_assert(kProducts * kProductQueries == kQueries && kParts * kSharedOut == kQueries,
              "whole products");
/** A row's queries; keys of a page, and with their scales. */
#define kQueryBytes (kHeads * 128)
#define kKeyBytes 8192
#define kPageBytes 8448
/** Pages in the ring. */
#ifndef kStages
#define kStages (kQueries == 1 ? 4 : 2)
#endif
/** Products under way at a time: a row of its own waits for memory, not for the tensor cores. */
#define kTurns (kQueries == 1 ? 1 : 2)
/** The weights of four queries do not fit the registers of four blocks. */
#define kSharedWeights (kQueries > 1)
#define kBlocks 4
#define kSpanMax 128
#define kGroup 16
#define kRing (kQueries * kQueryBytes)
#define kWeights (kRing + kStages * kPageBytes)

struct Sm90ScoreArgs {
  const u8* keys;  // pages
  i64 page_bytes;
  const u8* queries;       // [rows of the chunk, kHeads * 128] e4m3, as index_queries leaves them
  const float* weights;    // [rows of the chunk, kHeads], likewise
  const int* positions;    // [rows]
  const int* tables;       // block tables
  const i64* table_start;  // [rows]
  i64 step_rows;
  float* scores;  // [rows of the chunk, score_stride]
  float* maxima;  // [rows of the chunk, score_stride / 16]
  i64 score_stride;
  i64 first_row;           // of the chunk
  i64 row_start, row_end;  // of this launch, in the chunk
  i64 width, span;         // pages of a block
  int* not_a_number;
};

/** A thread's part of a page: two rows of 128, and their scales. */
struct PageKeys {
  u32 low[8], high[8];
  float low_scale, high_scale;
};

/** Starts a copy of `bytes`, a multiple of 16, which is all that the barrier counts. */
__device__ __forceinline__ void fetch(u32 to, const void* from, u32 bytes, u32 barrier) {
  barrier_expect(barrier, bytes);
  copy_bulk(to, from, bytes, barrier);
}

/** Half a row's bytes of this thread, and the other half: odd rows read them in the other order. */
__device__ __forceinline__ void load_row(u32 (&to)[8], const u8* page, int row) {
  bool odd = row & 1;
  const uint4* half = (const uint4*)(page + row * 128 + (threadIdx.x & 3) * 16);
  uint4 one = half[odd ? 4 : 0], other = half[odd ? 0 : 4];
  uint4 first = odd ? other : one, second = odd ? one : other;
  to[0] = first.x, to[1] = first.y, to[2] = first.z, to[3] = first.w;
  to[4] = second.x, to[5] = second.y, to[6] = second.z, to[7] = second.w;
}

#define PRODUCT_OF_KEYS(columns, registers, a0, a1, a2, a3, b_at, keep_at)                       \
  __device__ __forceinline__ void wgmma_keys(float (&d)[registers], const PageKeys& keys, int k, \
                                             u64 b) {                                            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" keep_at                                    \
                 ", 0;\n"                                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #columns                                    \
                 "k32.f32.e4m3.e4m3 {" LIST_##registers                                          \
                 "}, "                                                                           \
                 "{%" a0 ", %" a1 ", %" a2 ", %" a3 "}, %" b_at ", p, 1, 1;\n}\n"                \
                 : SUMS_##registers(0)                                                           \
                 : "r"(keys.low[2 * k]), "r"(keys.high[2 * k]), "r"(keys.low[2 * k + 1]),        \
                   "r"(keys.high[2 * k + 1]), "l"(b), "r"(k > 0 ? 1 : 0));                       \
  }
PRODUCT_OF_KEYS(32, 16, "16", "17", "18", "19", "20", "21")
PRODUCT_OF_KEYS(64, 32, "32", "33", "34", "35", "36", "37")

/** Nothing that reads the products may move in front of this. */
__device__ __forceinline__ void settle(float (&products)[kProductRegisters]) {
#pragma unroll
  for (int i = 0; i < kProductRegisters; i++) asm volatile("" : "+f"(products[i])::"memory");
}

/** max(0, product), but a NaN stays one, so that a score of it is told. */
__device__ __forceinline__ float weighed(float sum, float product, float weight) {
  float positive;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(positive) : "f"(product));
  return fmaf(weight, positive, sum);
}

/** This lane's quarter of the heads of the two tokens it has in products [64 tokens][kHeads]. */
__device__ __forceinline__ void add_heads(const float* products, const float4* weights, float& low,
                                          float& high) {
  low = high = 0.f;
#pragma unroll
  for (int i = 0; i < kHeads / 16; i++) {
    float4 w = weights[i * (kSharedWeights ? 4 : 1)];
    const float* of = products + 8 * i;
    low = weighed(weighed(weighed(weighed(low, of[0], w.x), of[1], w.y), of[4], w.z), of[5], w.w);
    high = weighed(weighed(weighed(weighed(high, of[2], w.x), of[3], w.y), of[6], w.z), of[7], w.w);
  }
}

/**
 * Adds over the four lanes that share two tokens. Of four queries, each lane keeps the sums of one:
 * halves are exchanged instead of all sums of all lanes.
 */
__device__ __forceinline__ float2 add_lanes(const float* low, const float* high) {
  float2 sum;
#if kQueries == 1
  sum = make_float2(low[0], high[0]);
#pragma unroll
  for (int d = 1; d < 4; d <<= 1) {
    sum.x += __shfl_xor_sync(0xffffffffu, sum.x, d);
    sum.y += __shfl_xor_sync(0xffffffffu, sum.y, d);
  }
#else
  bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
  float2 pair[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float give = odd ? low[2 * i] : low[2 * i + 1], keep = odd ? low[2 * i + 1] : low[2 * i];
    pair[i].x = keep + __shfl_xor_sync(0xffffffffu, give, 1);
    give = odd ? high[2 * i] : high[2 * i + 1], keep = odd ? high[2 * i + 1] : high[2 * i];
    pair[i].y = keep + __shfl_xor_sync(0xffffffffu, give, 1);
  }
  float give = upper ? pair[0].x : pair[1].x, keep = upper ? pair[1].x : pair[0].x;
  sum.x = keep + __shfl_xor_sync(0xffffffffu, give, 2);
  give = upper ? pair[0].y : pair[1].y, keep = upper ? pair[1].y : pair[0].y;
  sum.y = keep + __shfl_xor_sync(0xffffffffu, give, 2);
#endif
  return sum;
}

/** Barriers in shared memory and how often each has been used. */
struct Ring {
  u32 base, full, queries;
  int pages, runs;
};

/**
 * Rows [from, end) of the chunk belong to one sequence; the block scores `pages` pages for them.
 */
__device__ __forceinline__ void score_rows(const Sm90ScoreArgs& a, i64 from, i64 end,
                                           const int* table, int pages, u8* shared, int* ids,
                                           Ring& ring) {
  int t = threadIdx.x, lane = t & 31, warp = t >> 5, quad = lane & 3, rows = (int)(end - from);
  auto load_page = [&](int page, int id) {
    int stage = (ring.pages + page) % kStages;
    u32 to = ring.base + kRing + stage * kPageBytes;
    fetch(to, a.keys + (i64)id * a.page_bytes, kPageBytes, ring.full + 8 * stage);
  };
  if (t < pages) {
    int id = __ldg(table + t);
    ids[t] = id;
    if (t < kStages) load_page(t, id);
  }
  // Queries behind the last are what the memory held; their scores are not written.
  if (t == 32) fetch(ring.base, a.queries + from * kQueryBytes, rows * kQueryBytes, ring.queries);
#if kSharedWeights
  for (int i = t; i < kQueries * kHeads / 4; i += 128) {
    const float4* w = (const float4*)(a.weights + from * kHeads);
    ((float4*)(shared + kWeights))[i] = __ldg(w + min(i, rows * (kHeads / 4) - 1));
  }
  const float4* weights = (const float4*)(shared + kWeights) + quad;
#else
  float4 weights[kQueries][kHeads / 16];
#pragma unroll
  for (int q = 0; q < kQueries; q++) {
    const float4* w = (const float4*)(a.weights + (from + min(q, rows - 1)) * kHeads) + quad;
#pragma unroll
    for (int i = 0; i < kHeads / 16; i++) weights[q][i] = __ldg(w + 4 * i);
  }
#endif

  // With four queries a lane writes the scores of one, else every lane has both tokens of the row.
  int mine = kQueries == 1 ? 0 : quad, position[kParts];
#pragma unroll
  for (int p = 0; p < kParts; p++) {
    position[p] = mine + 4 * p < rows ? a.positions[a.first_row + from + mine + 4 * p] : -1;
  }
  int first_token = blockIdx.x * (int)a.span * 64 + warp * 16;
  float* scores = a.scores + (from + mine) * a.score_stride;
  float* maxima = a.maxima + (from + mine) * (a.score_stride / kGroup);
  bool bad = false;
  PageKeys keys;
  auto finish = [&](int page, int part, float2 sum) {
    int group = first_token + page * 64, token = group + (lane >> 2);
    float low = sum.x * keys.low_scale, high = sum.y * keys.high_scale, greatest = minus_infinity();
    float* to = scores + 4 * part * a.score_stride;
    // A NaN sets the flag, and counts as the least for the top-k.
    if (token <= position[part]) {
      bad |= low != low;
      greatest = low = fmaxf(low, minus_infinity());
      if (kQueries > 1 || quad == 0) to[token] = low;
    }
    if (token + 8 <= position[part]) {
      bad |= high != high;
      high = fmaxf(high, minus_infinity());
      greatest = fmaxf(greatest, high);
      if (kQueries > 1 || quad == 0) to[token + 8] = high;
    }
#pragma unroll
    for (int d = 4; d < 32; d <<= 1)
      greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, d));
    float* greatest_at = maxima + 4 * part * (a.score_stride / kGroup);
    if (lane < kSharedOut && group <= position[part]) greatest_at[group / kGroup] = greatest;
  };

  barrier_wait(ring.queries, ring.runs & 1);
  __syncthreads();
  u64 query = k_major(ring.base);
  float products[kTurns][kProductRegisters], low[kQueries], high[kQueries];
  // Frees the page's place in the ring for the one that follows it there.
  auto take_page = [&](int page) {
    int stage = (ring.pages + page) % kStages;
    const u8* at = shared + kRing + stage * kPageBytes;
    int row = warp * 16 + (lane >> 2);
    barrier_wait(ring.full + 8 * stage, (ring.pages + page) / kStages & 1);
    load_row(keys.low, at, row), load_row(keys.high, at, row + 8);
    keys.low_scale = ((const float*)(at + kKeyBytes))[row];
    keys.high_scale = ((const float*)(at + kKeyBytes))[row + 8];
    loads_done();
    __syncthreads();
    if (t == 0 && page + kStages < pages) load_page(page + kStages, ids[page + kStages]);
  };
  auto issue = [&](float(&to)[kProductRegisters], int q) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_keys(to, keys, k, query + q * (kKeyBytes >> 4) + 2 * k);
    wgmma_commit();
  };
  // Nothing is in flight from one page to the next: ptxas would wait for every product on its own.
  for (int page = 0; page < pages; page++) {
    take_page(page);
    if (kTurns > 1) issue(products[0], 0);
#pragma unroll
    for (int q = 0; q < kProducts; q++) {
      int next = q + kTurns - 1;
      if (next < kProducts) {
        issue(products[next % kTurns], next);
        wgmma_wait<kTurns - 1>();
      } else {
        wgmma_wait<0>();
      }
      settle(products[q % kTurns]);
#pragma unroll
      for (int i = 0; i < kProductQueries; i++) {
        int of = q * kProductQueries + i;
        const float* product = products[q % kTurns] + i * (kHeads / 2);
#if kSharedWeights
        add_heads(product, weights + of * (kHeads / 4), low[of], high[of]);
#else
        add_heads(product, weights[of], low[of], high[of]);
#endif
      }
    }
#pragma unroll
    for (int p = 0; p < kParts; p++) finish(page, p, add_lanes(low + 4 * p, high + 4 * p));
  }
  if (bad) *a.not_a_number = 1;
  ring.pages += pages;
  ring.runs++;
}

extern "C" __global__ void __launch_bounds__(128, kBlocks)
sm90_index_scores(const __grid_constant__ Sm90ScoreArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  __shared__ int ids[kSpanMax];
  __shared__ u64 barriers[kStages + 1];
  Ring ring = {shared_address(shared), shared_address(barriers), shared_address(barriers + kStages),
               0, 0};
  i64 start = a.row_start + (i64)blockIdx.y * kQueries, end = min(start + kQueries, a.row_end);
  int first_page = blockIdx.x * (int)a.span;
  for (i64 from = start, to; from < end; from = to) {
    i64 row = a.first_row + from, table = a.table_start[row];
    for (to = from + 1; to < end && a.table_start[a.first_row + to] == table; to++) continue;
    // Sequences with one row are scored by the kernel for one, which leaves those with more.
    bool alone = to - from == 1 && (row == 0 || a.table_start[row - 1] != table) &&
                 (row + 1 == a.step_rows || a.table_start[row + 1] != table);
    int furthest = a.positions[a.first_row + to - 1];
    if (alone != (kQueries == 1) || furthest < a.width) continue;
    int pages = min(first_page + (int)a.span, furthest / 64 + 1) - first_page;
    if (pages <= 0) continue;
    if (ring.runs == 0) {
      if (threadIdx.x <= kStages) barrier_init(ring.full + 8 * threadIdx.x, 1);
      fence_async();
    }
    __syncthreads();
    score_rows(a, from, to, a.tables + table + first_page, pages, shared, ids, ring);
  }
}
