// Causal attention of prefill rows with expanded keys and values on the tensor cores: heads of
// kNope + 64 (rope) dimensions, values of kValue; 128 and 128, or 192 and 256. The sums and the
// ladder of versions: sm90-dense-mha.md.
//
// A pass holds the expanded tokens of one or more sequences, each from a multiple of 128 rows of
// the buffer on. A thread block takes up to 128 rows of one sequence and one head: a producer
// thread has the copy engine bring tiles of kTileKeys keys and values, two consumer warpgroups take
// 64 rows each. The scores of the next tile are started before the values of this one, so that a
// group's products run while it computes weights. Keys come in ascending order, and the state of a
// row goes from pass to pass in float32 as it is, so a row's result depends on its own keys alone.
//
// With kMasked a row attends to its selection alone, of which `selected` has a bit for every token.
// If all that it sees is selected, its result is the one without, to the bit.
//
// Requires: q and out bf16, aligned to 16 bytes and so are their strides; the scale is positive.

#ifndef kMasked
#define kMasked 0
#endif
#ifndef kNope
#define kNope 128
#endif
#ifndef kValue
#define kValue 128
#endif
// The host (dense-prefill.ts) says how much shared memory a block has.
#ifndef kSharedBytes
#define kSharedBytes 232448
#endif

struct DenseMhaArgs {
  u16* out;  // [rows, out_stride] bf16, heads * kValue
  i64 out_stride;
  const u16* q;  // [rows, q_stride] bf16, heads * (kNope + 64 rope)
  i64 q_stride;
  u64 expanded_map;      // tensor map of [buffer rows, heads * (kNope + kValue)] bf16
  u64 rope_map;          // tensor map of [buffer rows, 64] bf16
  const int* tiles;      // [gridDim.x, 8]: see MhaTile
  const int* positions;  // [rows]
  float* sums;           // [rows, heads, kValue]: values summed so far
  float* stats;          // [rows, heads, 2]: maximum score, sum of weights
  real scale;
  const u32* selected;  // [blocks of 128 tokens, selected_rows, 4]: see selection_bits; if kMasked
  i64 selected_rows;
};

/**
 * Up to 128 rows, and the keys from buffer row `key_row` on, the first of them at position `first`.
 */
struct MhaTile {
  int row, rows, key_row, first;
  int blocks;  // of 128 keys: those that some row sees
  int flags, unused[2];
};
#define kContinues 1
#define kEnds 2

#define kRope 64
/** Sums of 256 columns leave registers for the scores of 64 keys. */
#define kTileKeys (kValue == 128 ? 128 : 64)
#define kTileShift (kValue == 128 ? 7 : 6)
#define kTilesOfBlock (128 / kTileKeys)
/** Chunks are 64 columns wide: of 128 queries, and of a tile's keys and values. */
#define kQueryChunk 16384
#define kTileChunk (kTileKeys * 128)
#define kKeyChunks ((kNope + kRope) / 64)
#define kValueChunks (kValue / 64)
/** A value's pieces of 16 bytes are a power of two. */
#define kPieceShift (kValue == 128 ? 4 : 5)
static_assert((kNope == 128 && kValue == 128) || (kNope == 192 && kValue == 256),
              "dimensions of a head");
#define kKeyBytes (kKeyChunks * kTileChunk)
#define kValueBytes (kValueChunks * kTileChunk)
#define kKeyTiles (kKeyChunks * kQueryChunk) /* behind the queries */
#define kValueTiles (kKeyTiles + 2 * kKeyBytes)
#define kBarriers (kValueTiles + 2 * kValueBytes)
static_assert(kValueChunks <= kKeyChunks, "outputs leave through the place of the queries");
static_assert(kBarriers + 64 <= kSharedBytes, "the host gives a block too little shared memory");
#define kConsumerRegisters 240
#define kProducerRegisters 24
static_assert(256 * kConsumerRegisters + 128 * kProducerRegisters <= 384 * 168,
              "too many registers");

/** A box of 64 columns and kTileKeys rows. */
__device__ __forceinline__ void load_box(u32 to, u64 map, int column, int row, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void store_shared(u32 to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/** Keeps reads of results behind the wait for them. */
template <int kCount>
__device__ __forceinline__ void settle(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(x[i])::"memory");
}

extern "C" __global__ void __launch_bounds__(384, 1)
sm90_dense_mha(const __grid_constant__ DenseMhaArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  u32 base = shared_address(shared), keys = base + kKeyTiles, values = base + kValueTiles;
  u32 full_keys = base + kBarriers, full_values = full_keys + 16;
  u32 free_keys = full_keys + 32, free_values = full_keys + 48;
  int t = threadIdx.x, lane = t & 31, group = t >> 7;
  i64 head = blockIdx.y;
  const int4* record = (const int4*)(a.tiles + blockIdx.x * 8);
  int4 first_half = __ldg(record), second_half = __ldg(record + 1);
  MhaTile tile = {first_half.x,  first_half.y,  first_half.z, first_half.w,
                  second_half.x, second_half.y, {}};

  const int tiles = tile.blocks * kTilesOfBlock;
  if (t == 0) {
    for (int s = 0; s < 2; s++) {
      barrier_init(full_keys + 8 * s, 1);
      barrier_init(full_values + 8 * s, 1);
      barrier_init(free_keys + 8 * s, 8);
      barrier_init(free_values + 8 * s, 8);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  if (group == 2) {
    // ---- producer: one thread ----
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (t == 256) {
      // The host wrote the maps; nobody has since.
      asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(a.expanded_map)
                   : "memory");
      asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(a.rope_map)
                   : "memory");
      int column = (int)head * (kNope + kValue);
      for (int b = 0; b < tiles; b++) {
        u32 stage = b & 1, parity = ((b >> 1) & 1) ^ 1;
        int row = tile.key_row + b * kTileKeys;
        u32 key = keys + stage * kKeyBytes, key_barrier = full_keys + 8 * stage;
        barrier_wait(free_keys + 8 * stage, parity);
        barrier_expect(key_barrier, kKeyBytes);
        load_box(key, a.expanded_map, column, row, key_barrier);
        load_box(key + kTileChunk, a.expanded_map, column + 64, row, key_barrier);
        if (kNope == 192)
          load_box(key + 2 * kTileChunk, a.expanded_map, column + 128, row, key_barrier);
        load_box(key + kNope / 64 * kTileChunk, a.rope_map, 0, row, key_barrier);
        u32 value = values + stage * kValueBytes, value_barrier = full_values + 8 * stage;
        barrier_wait(free_values + 8 * stage, parity);
        barrier_expect(value_barrier, kValueBytes);
        load_box(value, a.expanded_map, column + kNope, row, value_barrier);
        load_box(value + kTileChunk, a.expanded_map, column + kNope + 64, row, value_barrier);
        if (kValue == 256) {
          load_box(value + 2 * kTileChunk, a.expanded_map, column + kNope + 128, row,
                   value_barrier);
          load_box(value + 3 * kTileChunk, a.expanded_map, column + kNope + 192, row,
                   value_barrier);
        }
      }
    }
  } else {
    // ---- consumers: 64 rows each ----
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    int warp = (t >> 5) & 3, in_group = t & 127;
    u32 queries = base + group * (kQueryChunk / 2);
    const int pieces = kKeyChunks * 8;
    for (int i = in_group; i < 64 * pieces; i += 128) {
      int r = i / pieces, piece = i % pieces, row = group * 64 + r;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (row < tile.rows) {
        v = *(const uint4*)(a.q + (tile.row + row) * a.q_stride + head * (kNope + kRope) +
                            piece * 8);
      }
      store_shared(queries + (piece >> 3) * kQueryChunk + swizzled(r, piece & 7), v.x, v.y, v.z,
                   v.w);
    }
    // A thread has two rows, in the registers with bit 1 of the index clear and set.
    int own_row = group * 64 + warp * 16 + (lane >> 2);
    int position[2];
    float maximum[2], sum[2], out[kValue / 2];
    i64 heads = gridDim.y;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int row = own_row + 8 * r;
      bool valid = row < tile.rows;
      position[r] = valid ? __ldg(a.positions + tile.row + row) : 0x7fffffff;
      maximum[r] = minus_infinity();
      sum[r] = 0.f;
      bool continues = valid && (tile.flags & kContinues);
      i64 place = (tile.row + row) * heads + head;
      if (continues) {
        maximum[r] = a.stats[place * 2];
        if ((lane & 3) == 0) sum[r] = a.stats[place * 2 + 1];
      }
      const float* from = a.sums + place * kValue + (lane & 3) * 2;
#pragma unroll
      for (int c = 0; c < kValue / 8; c++) {
        float2 pair = make_float2(0.f, 0.f);
        if (continues) pair = *(const float2*)(from + 8 * c);
        out[4 * c + 2 * r] = pair.x;
        out[4 * c + 2 * r + 1] = pair.y;
      }
    }
    // Tiles that every row of this group sees whole: positions ascend.
    int seen_by_all = 0x7fffffff;
    if (group * 64 < tile.rows) {
      seen_by_all = (__ldg(a.positions + tile.row + group * 64) + 1 - tile.first) >> kTileShift;
    }
    // The bits of this thread's columns in the block whose weights come next, of both rows. Rows
    // behind the tile's last are read like the others: nothing that comes of them is stored.
    const u32* selected_at =
        a.selected + ((tile.first >> 7) * a.selected_rows + tile.row + own_row) * 4 + (lane & 3);
    u32 selected[2] = {0, 0};
    auto fetch_selected = [&]() {
      selected[0] = __ldg(selected_at);
      selected[1] = __ldg(selected_at + 8 * 4);
      selected_at += a.selected_rows * 4;
    };
    if (kMasked) fetch_selected();
    float scale = a.scale.v * 1.4426950408889634f;
    fence_async();
    asm volatile("bar.sync %0, 128;" ::"r"(4 + group) : "memory");

    float scores[kTileKeys / 2], shrink[2];
    u32 weights[kTileKeys / 4];
    auto start_scores = [&](int b) {
      u64 query = k_major(queries), key = k_major(keys + (b & 1) * kKeyBytes);
      // Or the compiler would keep every step's descriptor in registers through the loop.
      asm volatile("" : "+l"(query), "+l"(key));
#pragma unroll
      for (int c = 0; c < kKeyChunks; c++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
          u64 query_at = c * (kQueryChunk >> 4) + 2 * k, key_at = c * (kTileChunk >> 4) + 2 * k;
          wgmma_bf16(scores, query + query_at, key + key_at, c + k > 0);
        }
      }
      wgmma_commit();
    };
    auto start_values = [&](int b) {
      u64 value = row_major(values + (b & 1) * kValueBytes, kTileChunk);
      asm volatile("" : "+l"(value));
#pragma unroll
      for (int k = 0; k < kTileKeys / 16; k++) {
        wgmma_bf16_rows(out, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2],
                        weights[4 * k + 3], value + k * (2048 >> 4));
      }
      wgmma_commit();
    };
    auto wait_full = [&](u32 barriers, int b) {
      barrier_wait(barriers + 8 * (b & 1), (b >> 1) & 1);
    };
    auto release = [&](u32 barriers, int b) {
      if (lane == 0) barrier_arrive(barriers + 8 * (b & 1));
    };

    // Scores to weights in place, and by how much earlier sums shrink.
    auto softmax = [&](int b) {
      if (kMasked) {
#pragma unroll
        for (int i = 0; i < kTileKeys / 2; i++) {
          u32 bit = 1u << (2 * (i >> 2) + (i & 1));
          if (!(selected[(i >> 1) & 1] & bit)) scores[i] = minus_infinity();
        }
        if (b % kTilesOfBlock < kTilesOfBlock - 1) {
          // The block's other half.
          selected[0] >>= 16;
          selected[1] >>= 16;
        } else if (b + 1 < tiles) {
          // A block ahead, so that the next products run meanwhile.
          fetch_selected();
        }
      } else if (b >= seen_by_all) {
        int key = tile.first + b * kTileKeys + (lane & 3) * 2;
#pragma unroll
        for (int i = 0; i < kTileKeys / 2; i++) {
          if (key + (i >> 2) * 8 + (i & 1) > position[(i >> 1) & 1]) scores[i] = minus_infinity();
        }
      }
      float offset[2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float top = maximum[r];
#pragma unroll
        for (int i = 2 * r; i < kTileKeys / 2; i += 4)
          top = fmaxf(top, fmaxf(scores[i], scores[i + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        // While nothing of a row has been selected, its sums and weights are zeros.
        float from = kMasked && top == minus_infinity() ? 0.f : top;
        shrink[r] = exp2_fast((maximum[r] - from) * scale);
        maximum[r] = top;
        offset[r] = -from * scale;
        sum[r] *= shrink[r];
      }
#pragma unroll
      for (int i = 0; i < kTileKeys / 2; i++) {
        scores[i] = exp2_fast(fmaf(scores[i], scale, offset[(i >> 1) & 1]));
        sum[(i >> 1) & 1] += scores[i];
      }
    };
    auto shrink_out = [&]() {
#pragma unroll
      for (int i = 0; i < kValue / 2; i++) out[i] *= shrink[(i >> 1) & 1];
    };
    auto pack = [&]() {
#pragma unroll
      for (int i = 0; i < kTileKeys / 4; i++)
        weights[i] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
    };

    // The host makes no tile without blocks.
    wait_full(full_keys, 0);
    wgmma_fence();
    start_scores(0);
    wgmma_wait<0>();
    settle(scores);
    release(free_keys, 0);
    softmax(0);
    shrink_out();
    pack();
    for (int b = 1; b < tiles; b++) {
      wait_full(full_keys, b);
      wgmma_fence();
      start_scores(b);
      wait_full(full_values, b - 1);
      wgmma_fence();
      start_values(b - 1);
      wgmma_wait<1>();
      settle(scores);
      release(free_keys, b);
      softmax(b);
      wgmma_wait<0>();
      settle(out);
      release(free_values, b - 1);
      shrink_out();
      pack();
    }
    wait_full(full_values, tiles - 1);
    wgmma_fence();
    start_values(tiles - 1);
    wgmma_wait<0>();
    settle(out);

    // ---- the state for the next pass, or the result ----
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    }
    if (!(tile.flags & kEnds)) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int row = own_row + 8 * r;
        if (row >= tile.rows) continue;
        i64 place = (tile.row + row) * heads + head;
        if ((lane & 3) == 0) {
          *(float2*)(a.stats + place * 2) = make_float2(maximum[r], sum[r]);
        }
        float* to = a.sums + place * kValue + (lane & 3) * 2;
#pragma unroll
        for (int c = 0; c < kValue / 8; c++) {
          *(float2*)(to + 8 * c) = make_float2(out[4 * c + 2 * r], out[4 * c + 2 * r + 1]);
        }
      }
    } else {
      // Through the place of the queries, so that rows are written 16 bytes a thread.
      int r0 = warp * 16 + (lane >> 2);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float factor = 1.f / sum[r];
#pragma unroll
        for (int c = 0; c < kValue / 8; c++) {
          u32 pair = pack_bf16(out[4 * c + 2 * r] * factor, out[4 * c + 2 * r + 1] * factor);
          u32 at = queries + (c >> 3) * kQueryChunk + swizzled(r0 + 8 * r, c & 7) + (lane & 3) * 4;
          asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pair) : "memory");
        }
      }
      asm volatile("bar.sync %0, 128;" ::"r"(4 + group) : "memory");
      for (int i = in_group; i < 64 << kPieceShift; i += 128) {
        int r = i >> kPieceShift, piece = i & ((1 << kPieceShift) - 1), row = group * 64 + r;
        if (row >= tile.rows) continue;
        uint4 v;
        u32 from = queries + (piece >> 3) * kQueryChunk + swizzled(r, piece & 7);
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(from) : "memory");
        *(uint4*)(a.out + (tile.row + row) * a.out_stride + head * kValue + piece * 8) = v;
      }
    }
  }
}

// ---- the selection as bits ----

struct SelectionBitsArgs {
  u32* bits;  // [blocks, rows, 4]
  i64 blocks, rows;
  const int* selected;  // [rows, width] positions
  i64 width;
  const int* counts;  // [rows]
  i64 first_row;
};

/**
 * Eight warps to a block, a warp to a row. A row has four words for 128 tokens: column c of them
 * has bit 2 * (c / 8) + c % 2 of word c / 2 % 4, since a thread of the tensor cores' results holds
 * the columns of one such word (sm90.cuh).
 */
extern "C" __global__ void __launch_bounds__(256)
    selection_bits(const __grid_constant__ SelectionBitsArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  u32* words = (u32*)shared;  // [8, blocks * 4]
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, row_words = (int)a.blocks * 4;
  for (int i = threadIdx.x; i < 8 * row_words; i += 256) words[i] = 0;
  __syncthreads();
  i64 first = a.first_row + (i64)blockIdx.x * 8, row = first + warp;
  if (row < a.rows) {
    const int* positions = a.selected + row * a.width;
    u32* own = words + warp * row_words;
    int count = __ldg(a.counts + row);
#pragma unroll 4
    for (int i = lane; i < count; i += 32) {
      int p = __ldg(positions + i);
      atomicOr(own + (p >> 7) * 4 + ((p >> 1) & 3), 1u << (((p >> 2) & 30) | (p & 1)));
    }
  }
  __syncthreads();
  // Rows side by side, as they lie.
  for (int i = threadIdx.x; i < 8 * row_words; i += 256) {
    int block = i >> 5, r = (i >> 2) & 7, word = i & 3;
    if (first + r >= a.rows) continue;
    a.bits[(block * a.rows + first + r) * 4 + word] = words[r * row_words + block * 4 + word];
  }
}

// ---- the cache entries of a pass ----------------------------------------------------------------

struct PassEntriesArgs {
  u16* latents;  // [buffer rows, 512] bf16
  u16* rope;     // [buffer rows, 64] bf16
  const u8* cache;
  i64 entry_bytes, format;
  const int* tables;
  // [gridDim.x / 16, 4]: start of the block table, position of the first, tokens
  const int* blocks;
};

/** Eight warps to a block, a warp to a buffer row; rows without a token become zeros. */
extern "C" __global__ void __launch_bounds__(256)
    sm90_pass_entries(const __grid_constant__ PassEntriesArgs a) {
  int row = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  int4 block = __ldg((const int4*)a.blocks + (row >> 7));
  Bf16Entry wide = {};
  if ((row & 127) < block.z) {
    int position = block.y + (row & 127);
    i64 slot = (i64)__ldg(a.tables + block.x + (position >> 6)) * 64 + (position & 63);
    const u8* entry = a.cache + slot * a.entry_bytes;
    if (a.format == kDtypeBf16) {
      wide.low = *(const uint4*)(entry + lane * 32);
      wide.high = *(const uint4*)(entry + lane * 32 + 16);
      wide.rope = *(const u32*)(entry + 1024 + lane * 4);
    } else {
      wide = dequant_entry(entry);
    }
  }
  uint4* to = (uint4*)(a.latents + (i64)row * 512 + lane * 16);
  to[0] = wide.low;
  to[1] = wide.high;
  ((u32*)(a.rope + (i64)row * 64))[lane] = wide.rope;
}
