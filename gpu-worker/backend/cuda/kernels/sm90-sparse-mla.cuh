// Absorbed attention of one row's heads over its selected tokens on the tensor cores, for entries
// of 512 latent and 64 rope dimensions: what the kernels share. They differ in how entries come to
// shared memory, bf16 (kFp8 = 0, sm90-sparse-mla-bf16.cu) or the 656-byte fp8 entry (kFp8 = 1,
// sm90-sparse-mla-fp8.cu), and in how many heads a block takes: 64 (sm90-sparse-mla-64.cuh), or 8,
// 16 or 32 (sm90-sparse-mla-few.cuh). The sums and the ladder of versions: sm90-sparse-mla.md.
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
// Requires: heads a multiple of kBlockHeads * kCtas; out and q bf16, aligned to 16 bytes and so are
// their strides; 16 x 2^31 bytes of entries at most.

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
/** Heads that a block takes, 8, 16, 32 or 64. */
#ifndef kBlockHeads
#define kBlockHeads 64
#endif
#define kFewHeads (kBlockHeads < 64)

// The host (sparse-mla.ts) says how much shared memory a block has.
#ifndef kSharedBytes
#define kSharedBytes 232448
#endif

// Shared memory: queries, two buffers of entries, a staging area for outputs, of few heads two
// groups' weights, then barriers and exchanges.
#define kQueryChunk (kBlockHeads * 128)
#define kBuffers (9 * kQueryChunk)
#define kStaging (kBuffers + 2 * kTileBytes)
#define kWeights (kStaging + 8192)
#define kBarriers (kWeights + (kFewHeads ? 2 * kQueryChunk : 0))
#define kMaxima (kBarriers + 128)
#define kSums (kMaxima + 512)
#define kTops (kSums + (kFewHeads ? 64 * kBlockHeads : 1024))
#define kSharedEnd (kTops + (kFewHeads ? 32 * kBlockHeads : 0))
static_assert(kSharedEnd <= kSharedBytes, "the host gives a block too little shared memory");
static_assert(kBuffers % 1024 == 0 && kWeights % 1024 == 0, "operands begin at multiples of 1,024");

/** Dequantizing takes more hands than copying, and few heads leave registers for more of them. */
#define kProducerWarps (kFp8 ? (kFewHeads ? 16 : 8) : 4)
#define kThreads (256 + 32 * kProducerWarps)
/** Registers that the compiler gives each thread of the launch; multiples of 8. */
#define kRegistersEach (65536 / kThreads / 8 * 8)
#define kConsumerRegisters (!kFp8 ? 232 : kBlockHeads == 64 ? 192 : kBlockHeads == 32 ? 128 : 112)
// A group waits without end for registers that the block does not have.
#define kProducerRegisters \
  ((kThreads * kRegistersEach - 256 * kConsumerRegisters) / (32 * kProducerWarps) / 8 * 8)

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
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
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
  asm volatile("barrier.cluster.arrive.release.aligned;\n"
               "barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/** On a barrier of the other block; relaxed, since a release to the cluster flushes to L2. */
__device__ __forceinline__ void barrier_arrive_there(u32 barrier) {
  asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier)
               : "memory");
}

// ---- what the two roles share ----

/** A split of a row: blocks [first, end) of 64 tokens out of its `count` tokens. */
struct Work {
  int row, split, heads_at;
  int count, first, end;
};

__device__ __forceinline__ int works_of(const SparseMlaArgs& a) {
  return (int)(a.rows * (a.heads / (kBlockHeads * kCtas))) * (kSplit ? (int)a.splits : 1);
}

__device__ __forceinline__ int row_of(const SparseMlaArgs& a, int w) {
  // Divisions are slow and mostly by 1.
  int per_row = (int)(a.heads / (kBlockHeads * kCtas)) * (kSplit ? (int)a.splits : 1);
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
  int groups = (int)(a.heads / (kBlockHeads * kCtas)), splits = kSplit ? (int)a.splits : 1;
  int of_heads = groups == 1 ? w : w / groups;
  Work work;
  work.row = splits == 1 ? of_heads : of_heads / splits;
  work.split = of_heads - work.row * splits;
  work.heads_at = ((w - of_heads * groups) * kCtas + cluster_rank()) * kBlockHeads;
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
    place_after =
        paged_position < 0 ? -1 : (page * 64 + (paged_position & 63)) * (kEntryBytes / 16);
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
__device__ __forceinline__ void bring_queries(const SparseMlaArgs& a, u32 base, const Work& begun,
                                              u32 rows_begun) {
  const u32 barriers = base + kBarriers;
  const u16* q = a.q + begun.row * a.q_stride + begun.heads_at * kQueryWidth;
  barrier_wait(barriers + kQueriesEmpty, (rows_begun & 1) ^ 1);
  // Volatile, so that no address of these copies is kept in a register from row to row.
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
#pragma unroll 4
  for (int i = thread - 256; i < kBlockHeads * 72; i += kProducerWarps * 32) {
    int head = i / 72, at = i % 72;
    copy_async(base + (at >> 3) * kQueryChunk + swizzled(head, at & 7), q + i * 8, 16);
  }
  barrier_arrive_after_copies(barriers + kQueriesFull);
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
