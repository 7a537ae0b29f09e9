// Absorbed attention of one row's 64 heads over its selected tokens on the tensor cores, for
// entries of 512 latent and 64 rope dimensions: what the two kernels share that differ in how
// entries come to shared memory, bf16 (kFp8 = 0, sm90-sparse-mla-bf16.cu) or the 656-byte fp8 entry
// (kFp8 = 1, sm90-sparse-mla-fp8.cu). The sums and the ladder of versions: sm90-sparse-mla.md.
//
// A block's threads stay and go through the rows of the step: two warpgroups consume, the warps
// behind them produce. 64 tokens at a time belong to one consumer, even ones to the first and odd
// ones to the second, and both are in flight at once. The owner scores its tokens and turns scores
// into weights; each consumer sums half of the 512 output columns over both, with its own weights
// from registers and the other's from shared memory. So one consumer's softmax runs under the
// other's products. Producers run ahead into the next row.
//
// With kSplit = 1, a row's tokens are spread over `splits` works, and combine_splits adds them up.
// Without, they come in the order of the selection, so that a row has the same bits in any batch,
// and from entries of either kind that hold the same values.
//
// A maximum is the one that was found first, until a score exceeds it by more than kHeadroom: sums
// so far are then scaled down, which after the first tokens hardly ever happens.
//
// Requires: heads a multiple of 64 * kCtas; out and q bf16, aligned to 16 bytes and so are their
// strides; 16 x 2^31 bytes of entries at most.

struct SparseMlaArgs {
  u16* out;  // bf16 [rows, out_stride], heads * 512
  i64 out_stride;
  const u16* q;  // bf16 [rows, q_stride], heads * 576
  i64 q_stride;
  const u8* cache;  // [slots, 656 or 1,152 bytes]
  i64 rows, heads, splits;
  const int* positions;    // [rows]
  const int* tables;       // block tables of all sequences; null: pages lie in the tables' order
  const i64* table_start;  // [rows]
  i64 first_page;          // without tables: the page of the cache's start
  const int* selected;     // [rows, width], or null: all tokens up to the position
  i64 width;
  const int* counts;  // [rows]
  float* lse;         // [rows, lse_stride], or null
  i64 lse_stride;
  real scale;
  float* partial;      // [rows, splits, heads, 512] of the splits, each over its own sum
  float* partial_lse;  // [rows, splits, heads]
  i64 prefetch;        // 1: entries are likely not in L2
};

#define kLatent 512
#define kQueryWidth 576
#define kChunkBytes 8192
#define kTileBytes (9 * kChunkBytes)
#define kEntryBytes (kFp8 ? 656 : 1152)
// Without clusters unless a program says otherwise.
#ifndef kCtas
#define kCtas 1
#endif

// The host (sparse-mla.ts) says how much shared memory a block has.
#ifndef kSharedBytes
#define kSharedBytes 232448
#endif

// Shared memory: queries, two buffers of entries, a staging area for outputs, barriers, exchanges.
#define kBuffers kTileBytes
#define kStaging (3 * kTileBytes)
#define kBarriers (kStaging + 8192)
#define kMaxima (kBarriers + 128)
#define kSums (kMaxima + 512)
static_assert(kSums + 1024 <= kSharedBytes, "the host gives a block too little shared memory");

/** Dequantizing takes more hands than copying. */
#define kProducerWarps (kFp8 ? 8 : 4)
#define kThreads (256 + 32 * kProducerWarps)
/** Registers that the compiler gives each thread of the launch; multiples of 8. */
#define kRegistersEach (65536 / kThreads / 8 * 8)
#define kConsumerRegisters (kFp8 ? 192 : 232)
// A group waits without end for registers that the block does not have.
#define kProducerRegisters ((kThreads * kRegistersEach - 256 * kConsumerRegisters) / (32 * kProducerWarps) / 8 * 8)
/**
 * Columns of a product of values. With 128 registers a thread at the launch, the compiler takes no
 * product of 256, whatever a group asks for later.
 */
#define kProductColumns (kFp8 ? 128 : 256)
#define kProducts (256 / kProductColumns)
#define kSumsEach (kProductColumns / 2)

// Barriers. A buffer has a near half, the columns that its owner sums (with its own weights, so it
// is free early), and a far half with the rope part, where the owner leaves the weights for the
// other.
#define kQueriesFull 0
#define kQueriesEmpty 8
#define kFull(buffer, far) (16 + 16 * (buffer) + 8 * (far))
#define kEmpty(buffer, far) (48 + 16 * (buffer) + 8 * (far))
/**
 * Arrivals of a full barrier: a lane of every warp, or every thread once its copies have landed.
 */
#define kFullArrivals (kFp8 ? kProducerWarps * kWarpArrivals : 32 * kProducerWarps)
// Named barriers: a block's weights and maxima are written; a group's warps are together; a row
// ends.
#define kWeightsReady 1
#define kGroupTogether 3
#define kRowEnds 5
// The first group's scores are under way: the second's come after them, so that neither waits for
// both.
#define kScoresStarted 6

/** By how many powers of two a weight may exceed 1 before the sums so far are scaled down. */
#define kHeadroom 8.f

// ---- instructions ----

__device__ __forceinline__ void store_shared(u32 to, uint4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

__device__ __forceinline__ uint4 load_shared(u32 from) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from)
               : "memory");
  return v;
}

__device__ __forceinline__ u32 cluster_rank() {
#if kCtas == 2
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return 0;
#endif
}

/** An address of shared memory as the same place in the cluster's other block. */
__device__ __forceinline__ u32 other_block(u32 address) {
#if kCtas == 2
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(cluster_rank() ^ 1));
  return there;
#else
  return address;
#endif
}

__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/** On a barrier of the other block; relaxed, since a release to the cluster flushes to L2. */
__device__ __forceinline__ void barrier_arrive_there(u32 barrier) {
  asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// ---- what the two roles share ----

/** A split of a row: blocks [first, end) of 64 tokens out of its `count` tokens. */
struct Work {
  int row, split, heads_at;
  int count, first, end;
};

__device__ __forceinline__ int works_of(const SparseMlaArgs& a) {
  return (int)(a.rows * (a.heads / (64 * kCtas))) * (kSplit ? (int)a.splits : 1);
}

__device__ __forceinline__ int row_of(const SparseMlaArgs& a, int w) {
  // Divisions are slow and mostly by 1.
  int per_row = (int)(a.heads / (64 * kCtas)) * (kSplit ? (int)a.splits : 1);
  return per_row == 1 ? w : w / per_row;
}

/** The number of tokens of the row of work `w`; 0 past the last work. */
__device__ __forceinline__ int count_of(const SparseMlaArgs& a, int w) {
  if (w >= works_of(a)) return 0;
  int row = row_of(a, w);
  return a.selected ? __ldg(a.counts + row) : __ldg(a.positions + row) + 1;
}

__device__ __forceinline__ Work work_at(const SparseMlaArgs& a, int w, int count) {
  // Divisions are slow and mostly by 1.
  int groups = (int)(a.heads / (64 * kCtas)), splits = kSplit ? (int)a.splits : 1;
  int of_heads = groups == 1 ? w : w / groups;
  Work work;
  work.row = splits == 1 ? of_heads : of_heads / splits;
  work.split = of_heads - work.row * splits;
  work.heads_at = ((w - of_heads * groups) * kCtas + cluster_rank()) * 64;
  work.count = count;
  int blocks = (count + 63) / 64, share = splits == 1 ? blocks : (blocks + splits - 1) / splits;
  work.first = min(work.split * share, blocks);
  work.end = min(work.first + share, blocks);
  return work;
}

/** A warp is done with half of a buffer: told to the producers here and in the other block. */
__device__ __forceinline__ void give_back(u32 barrier, u32 barrier_there) {
  warp_arrive(barrier);
#if kCtas == 2
  if (kTraced || (threadIdx.x & 31) == 0) barrier_arrive_there(barrier_there);
#endif
}

// ---- what producers share ----

__device__ __forceinline__ int load_int(const int* from) {
  int v;
  asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

/** Tokens of a block that a warp of the producer gathers. */
#define kOwn (64 / kCtas / kProducerWarps)

/**
 * The blocks of 64 tokens that come one after another through all works. List, block table and
 * entry are loads that wait for one another: a position is read four blocks ahead, its page three,
 * and its entry one. Lane l looks up token l % kOwn of those that its warp gathers.
 */
struct BlockStream {
  const SparseMlaArgs& a;
  const int step, works, own;
  // A block as a number: its work, whether it is the row's first one, and its buffer; or -1.
  // The place where the lane's token begins counts 16 bytes from the start of the cache; below 0
  // there is none.
  int meta_now, place_now, meta_next, place_next, meta_after = -1, place_after = -1;

  __device__ __forceinline__ BlockStream(const SparseMlaArgs& args, int warp)
      : a(args),
        step(gridDim.x / kCtas),
        works(works_of(args)),
        own(((int)cluster_rank() * kProducerWarps + warp) * kOwn + (threadIdx.x & (kOwn - 1))) {
    w = blockIdx.x / kCtas;
    next_count = count_of(a, w);
    next_start = w < works ? (int)__ldg(a.table_start + row_of(a, w)) : 0;
    open_work();
    read_position();
    read_page();
    read_position();
    look_up();
    meta_now = meta_after;
    place_now = place_after;
    look_up();
    meta_next = meta_after;
    place_next = place_after;
  }

  /** Goes one block ahead with what is read early; `shift` makes it the next block. */
  __device__ __forceinline__ void look_up() {
    meta_after = paged_meta;
    place_after = paged_position < 0 ? -1 : (page * 64 + (paged_position & 63)) * (kEntryBytes / 16);
    read_page();
    read_position();
  }
  __device__ __forceinline__ void shift() {
    meta_now = meta_next;
    place_now = place_next;
    meta_next = meta_after;
    place_next = place_after;
  }

 private:
  // The work whose blocks are read, its next block, and what is known of the work after it.
  int w, b = 0, next_count, next_start, start = 0;
  Work work = {};
  const int* list = nullptr;
  // Three stages: `meta` and `position` of a block, its page, its place.
  int meta = -1, position = -1, paged_meta = -1, paged_position = -1, page = 0;
  int position_start = 0;

  __device__ __forceinline__ void open_work() {
    while (w < works) {
      work = work_at(a, w, next_count);
      start = next_start;
      list = a.selected ? a.selected + work.row * a.width : nullptr;
      b = work.first;
      if (w + step < works) {
        next_count = count_of(a, w + step);
        next_start = (int)__ldg(a.table_start + row_of(a, w + step));
      }
      if (work.first < work.end) return;
      w += step;
    }
  }

  __device__ __forceinline__ void read_position() {
    meta = -1;
    position = -1;
    if (w >= works) return;
    meta = w * 4 + (b == work.first ? 2 : 0) + ((b - work.first) & 1);
    position_start = start;
    int index = b * 64 + own;
    if (index < work.count) position = list ? load_int(list + index) : index;
    if (++b == work.end) {
      w += step;
      open_work();
    }
  }

  __device__ __forceinline__ void read_page() {
    paged_meta = meta;
    paged_position = position;
    if (position < 0) return;
    int at = position_start + (position >> 6);
    page = kFp8 || a.tables ? load_int(a.tables + at) : at - (int)a.first_page;
  }
};

/** At the beginning of a row its queries follow once the scores of the row before are computed. */
__device__ __forceinline__ void bring_queries(const SparseMlaArgs& a, u32 base, const Work& begun, u32 rows_begun) {
  const u32 barriers = base + kBarriers;
  const u16* q = a.q + begun.row * a.q_stride + begun.heads_at * kQueryWidth;
  barrier_wait(barriers + kQueriesEmpty, (rows_begun & 1) ^ 1);
  // Volatile, so that no address of these copies is kept in a register from row to row.
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
#pragma unroll 4
  for (int i = thread - 256; i < 64 * 72; i += kProducerWarps * 32) {
    int head = i / 72, at = i % 72;
    copy_async(base + (at >> 3) * kChunkBytes + swizzled(head, at & 7), q + i * 8, 16);
  }
  barrier_arrive_after_copies(barriers + kQueriesFull);
}

// ---- consumers ----

template <int kGroup>
__device__ __forceinline__ void consume(const SparseMlaArgs& a, u8* shared, u32 base) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int step = gridDim.x / kCtas, works = works_of(a);
  const u32 barriers = base + kBarriers, barriers_there = other_block(barriers);
  const u32 tile = base + kBuffers + kGroup * kTileBytes, queries = base;
  const u32 tile_other = base + kBuffers + (1 - kGroup) * kTileBytes;
  const int own_head = warp * 16 + (lane >> 2);
  const float scale = a.scale.v * 1.4426950408889634f;
  float* maxima = (float*)(shared + kMaxima);
  float* sums = (float*)(shared + kSums);
  u32 uses = 0, rows_begun = 0;

  int next_count = count_of(a, blockIdx.x / kCtas);
  for (int w = blockIdx.x / kCtas; w < works; w += step) {
    Work work = work_at(a, w, next_count);
    next_count = count_of(a, w + step);
    const int blocks = work.end - work.first, pairs = (blocks + 1) / 2;
    float out[kProducts][kSumsEach], maximum[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < 128; i++) out[i / kSumsEach][i % kSumsEach] = 0.f;
    if (pairs > 0) {
      barrier_wait(barriers + kQueriesFull, rows_begun & 1);
      fence_async();
      rows_begun++;
    }

    // Scores of 64 heads and the 64 tokens of this group's buffer, started and not waited for.
    float scores[32];
    auto start_scores = [&]() {
      auto chunk_scores = [&](int c, bool first) {
        u64 query = k_major(queries + c * kChunkBytes), key = k_major(tile + c * kChunkBytes);
#pragma unroll
        for (int k = 0; k < 4; k++) wgmma_bf16(scores, query + 2 * k, key + 2 * k, !first || k > 0);
      };
      barrier_wait(barriers + kFull(kGroup, 0), uses & 1);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < 4; c++) chunk_scores(4 * kGroup + c, c == 0);
      barrier_wait(barriers + kFull(kGroup, 1), uses & 1);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < 4; c++) chunk_scores(4 * (1 - kGroup) + c, false);
      chunk_scores(8, false);
      wgmma_commit();
      uses++;
    };

    // Takes over a maximum: what was summed before shrinks with it, which is rare.
    auto adopt = [&](const float (&next)[2]) {
      float shrink[2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        shrink[r] = next[r] == maximum[r] ? 1.f : exp2_fast((maximum[r] - next[r]) * scale);
        maximum[r] = next[r];
        sum[r] *= shrink[r];
      }
      if (__any_sync(0xffffffffu, shrink[0] != 1.f || shrink[1] != 1.f)) {
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < 128; i++) out[i / kSumsEach][i % kSumsEach] *= shrink[(i >> 1) & 1];
      }
    };

    // Scores to weights, as the left operand of the values' product has them in registers.
    u32 weights[16];
    float next[2];
    auto softmax = [&](int b) {
      if (b == (work.count + 63) / 64 - 1) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
          int token = b * 64 + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
          if (token >= work.count) scores[i] = minus_infinity();
        }
      }
      // A thread has two heads, in the registers with bit 1 of the index clear and set.
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float top = scores[2 * r];
#pragma unroll
        for (int i = 0; i < 32; i++) {
          if (((i >> 1) & 1) == r) top = fmaxf(top, scores[i]);
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        next[r] = (top - maximum[r]) * scale > kHeadroom ? top : maximum[r];
        if ((lane & 3) == 0) maxima[kGroup * 64 + own_head + 8 * r] = next[r];
      }
    };
    float added[2];
    auto weigh = [&]() {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float shift = next[r] * scale;
        added[r] = 0.f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float low = exp2_fast(fmaf(scores[4 * i + 2 * r], scale, -shift));
          float high = exp2_fast(fmaf(scores[4 * i + 2 * r + 1], scale, -shift));
          added[r] += low + high;
          weights[2 * i + r] = pack_bf16(low, high);
        }
      }
    };
    // The weights go where the block's rope part was: all warps of the group have scored it.
    auto leave_weights = [&]() {
      asm volatile("bar.sync %0, 128;" ::"n"(kGroupTogether + kGroup) : "memory");
      u32 head = warp * 16 + (lane & 15);
#pragma unroll
      for (int k = 0; k < 4; k++) {
        u32 at = tile + 8 * kChunkBytes + swizzled(head, 2 * k + (lane >> 4));
        store_matrices(at, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3]);
      }
      fence_async();
      asm volatile("bar.arrive %0, 256;" ::"n"(kWeightsReady + kGroup) : "memory");
    };
    auto await_weights = [&]() {
      asm volatile("bar.sync %0, 256;" ::"n"(kWeightsReady + 1 - kGroup) : "memory");
    };
    auto start_own_values = [&]() {
      u64 value = row_major(tile + kGroup * 4 * kChunkBytes, kChunkBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4 * kProducts; k++) {
        const u32* w = weights + 4 * (k / kProducts);
        u64 at = value + (k % kProducts) * (2 * kChunkBytes >> 4) + (k / kProducts) * (2048 >> 4);
        wgmma_bf16_rows(out[k % kProducts], w[0], w[1], w[2], w[3], at);
      }
      wgmma_commit();
    };
    auto start_other_values = [&]() {
      u64 weight = k_major(tile_other + 8 * kChunkBytes);
      u64 value = row_major(tile_other + kGroup * 4 * kChunkBytes, kChunkBytes);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4 * kProducts; k++) {
        u64 at = value + (k % kProducts) * (2 * kChunkBytes >> 4) + (k / kProducts) * (2048 >> 4);
        wgmma_bf16_rows(out[k % kProducts], weight + 2 * (k / kProducts), at);
      }
      wgmma_commit();
    };
    auto adopt_other = [&]() {
      float theirs[2];
#pragma unroll
      for (int r = 0; r < 2; r++) theirs[r] = maxima[(1 - kGroup) * 64 + own_head + 8 * r];
      adopt(theirs);
    };
    auto give = [&](int buffer, int far) {
      give_back(barriers + kEmpty(buffer, far), barriers_there + kEmpty(buffer, far));
    };
    auto give_queries = [&](bool last) {
      if (last) warp_arrive(barriers + kQueriesEmpty);
    };

    auto take_own_values = [&]() {
      leave_weights();
      adopt(next);
      sum[0] += added[0];
      sum[1] += added[1];
      start_own_values();
      wgmma_wait<0>();
      give(kGroup, 0);
    };
    const int full_pairs = blocks / 2;
    for (int pair = 0; pair < full_pairs; pair++) {
      const int b = work.first + 2 * pair + kGroup;
      const bool last = 2 * pair + 2 == blocks;
      if (kGroup == 1) asm volatile("bar.sync %0, 256;" ::"n"(kScoresStarted) : "memory");
      start_scores();
      if (kGroup == 0) {
        asm volatile("bar.arrive %0, 256;" ::"n"(kScoresStarted) : "memory");
        wgmma_wait<0>();
        give_queries(last);
        softmax(b);
        weigh();
        take_own_values();
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<0>();
        give(1, 1);
      } else {
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<1>();
        give_queries(last);
        softmax(b);
        weigh();
        wgmma_wait<0>();
        give(0, 1);
        take_own_values();
      }
    }
    if (blocks & 1) {
      // The first group's block alone.
      if (kGroup == 0) {
        start_scores();
        wgmma_wait<0>();
        give_queries(true);
        softmax(work.end - 1);
        weigh();
        take_own_values();
      } else {
        give_queries(true);
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<0>();
        give(0, 1);
      }
    }
    // Each group has summed the weights of its own blocks. Two rows take turns with the place:
    // after a row of one block, the first group waits for nothing before it ends its next one.
    if (pairs > 0) {
      float* total = sums + (rows_begun & 1) * 128;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
        if ((lane & 3) == 0) total[kGroup * 64 + own_head + 8 * r] = sum[r];
      }
      threads_meet<kRowEnds, 256>();
#pragma unroll
      for (int r = 0; r < 2; r++) sum[r] = total[own_head + 8 * r] + total[64 + own_head + 8 * r];
    }
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) factor[r] = sum[r] > 0.f ? 1.f / sum[r] : 0.f;
    i64 first_head = work.heads_at + warp * 16;
    bool writes_lse = kGroup == 0 && (lane & 3) == 0;
#if kSplit
    i64 at = ((i64)work.row * a.splits + work.split) * a.heads + first_head + (lane >> 2);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float* to = a.partial + (at + 8 * r) * kLatent + kGroup * 256 + (lane & 3) * 2;
      if (pairs > 0) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
          const float* pair = out[4 * i / kSumsEach] + 4 * i % kSumsEach + 2 * r;
          *(float2*)(to + 8 * i) = make_float2(pair[0] * factor[r], pair[1] * factor[r]);
        }
      }
      float lse = pairs > 0 ? maximum[r] * a.scale.v + logf(sum[r]) : minus_infinity();
      if (writes_lse) a.partial_lse[at + 8 * r] = lse;
    }
#else
    // Through a kilobyte of shared memory a warp, 32 columns at a time, so that rows leave in runs
    // of 64 bytes; pieces are swizzled so that neither side meets in a bank.
    u32 staging = base + kStaging + (kGroup * 4 + warp) * 1024;
    u16* to = a.out + work.row * a.out_stride + first_head * kLatent + kGroup * 256;
#pragma unroll
    for (int c = 0; c < 8; c++) {
      auto piece_at = [&](int row, int piece) {
        return staging + row * 64 + ((piece ^ ((row >> 1) & 3)) << 4);
      };
      u32 v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float* pair = out[16 * c / kSumsEach] + 16 * c % kSumsEach + 2 * i;
        v[i] = pack_bf16(pair[0] * factor[i & 1], pair[1] * factor[i & 1]);
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        store_matrices(piece_at(lane & 15, 2 * k + (lane >> 4)), v[4 * k], v[4 * k + 1], v[4 * k + 2],
                       v[4 * k + 3]);
      }
      __syncwarp();
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int row = 8 * k + (lane >> 2), piece = lane & 3;
        *(uint4*)(to + row * kLatent + c * 32 + piece * 8) = load_shared(piece_at(row, piece));
      }
      __syncwarp();
    }
    if (a.lse && writes_lse) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float lse = sum[r] > 0.f ? maximum[r] * a.scale.v + logf(sum[r]) : __int_as_float(0x7f800000);
        a.lse[work.row * a.lse_stride + first_head + (lane >> 2) + 8 * r] = lse;
      }
    }
#endif
  }
}

// ---- the kernel's frame ----

__device__ __forceinline__ void init_barriers(u32 base) {
  const u32 barriers = base + kBarriers;
  if (threadIdx.x == 0) {
    barrier_init(barriers + kQueriesFull, 32 * kProducerWarps);
    barrier_init(barriers + kQueriesEmpty, 8 * kWarpArrivals);
    for (int buffer = 0; buffer < 2; buffer++) {
      for (int far = 0; far < 2; far++) {
        barrier_init(barriers + kFull(buffer, far), kFullArrivals);
        barrier_init(barriers + kEmpty(buffer, far), 4 * kCtas * kWarpArrivals);
      }
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}
