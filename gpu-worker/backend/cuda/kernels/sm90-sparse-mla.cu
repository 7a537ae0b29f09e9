// Absorbed attention of one row's 64 heads over its selected tokens on the matrix unit, for entries of
// 512 latent and 64 rope dimensions: bf16 (kFp8 = 0) or the 656-byte fp8 entry (kFp8 = 1), which the
// producer widens to bf16. The sums and the ladder of versions: sm90-sparse-mla.md.
//
// 384 threads. A producer warpgroup gathers 64 tokens at a time into one of two buffers. Two consumer
// warpgroups compute the scores of all 64 heads for half of the tokens each, exchange maxima and
// weights through shared memory, and each sum half of the 512 output columns.
// Keys come in the order of the selection and nothing is split, so a row's result does not depend on
// the batch. The caller gives AttendArgs (attend.cu's) with heads a multiple of 64.

struct AttendArgs {
  u16* out;  // bf16
  i64 out_stride;
  const u16* q;  // bf16
  i64 q_stride;
  const u8* cache;
  i64 entry_bytes, format, latent, rope, heads;
  const int* positions;
  const int* tables;
  const i64* table_start;
  const int* selected;
  i64 width;
  const int* counts;
  float* lse;
  i64 lse_stride;
  real scale;
};

#define kLatent 512
#define kWidth 576
#define kChunks 9
#define kChunkBytes 8192
#define kTileBytes (kChunks * kChunkBytes)
#define kSoftmaxWeights (3 * kTileBytes)
#define kBarriers (kSoftmaxWeights + kChunkBytes)
#define kMaxima (kBarriers + 64)
#define kProducerRegisters 88
#define kConsumerRegisters 208
// What a group asks for beyond what the block has, it waits for without end.
static_assert(128 * kProducerRegisters + 256 * kConsumerRegisters <= 384 * 168, "too many registers");

#if kFp8
/** Four e4m3 codes times a scale as two pairs of bf16; `factor` holds scale * 2^120 twice. */
__device__ __forceinline__ void widen(u32 codes, u32 factor, u32& low, u32& high) {
  u32 a = __byte_perm(codes, 0, 0x1404), b = __byte_perm(codes, 0, 0x3424);
  a = (a & 0x80008000) | ((a >> 4) & 0x07f007f0);
  b = (b & 0x80008000) | ((b >> 4) & 0x07f007f0);
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(low) : "r"(a), "r"(factor));
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(high) : "r"(b), "r"(factor));
}

/** 16 bytes of an entry, zeros of none; volatile, so that it stays where it is issued. */
__device__ __forceinline__ uint4 load_piece(const u8* entry, int offset) {
  uint4 piece = make_uint4(0, 0, 0, 0);
  if (entry) {
    asm volatile("ld.global.nc.L2::128B.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(piece.x), "=r"(piece.y), "=r"(piece.z), "=r"(piece.w)
                 : "l"(entry + offset));
  }
  return piece;
}

__device__ __forceinline__ float4 load_scales(const u8* entry) {
  uint4 bits = load_piece(entry, kLatent);
  return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                     __uint_as_float(bits.w));
}
#endif

__device__ __forceinline__ void store_shared(u32 to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

extern "C" __global__ void __launch_bounds__(384, 1)
sm90_sparse_mla(const __grid_constant__ AttendArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  u32 base = shared_address(shared);
  u32 weights = base + kSoftmaxWeights;
  u32 queries = base, buffers = base + kTileBytes, full = base + kBarriers, empty = full + 16;
  int t = threadIdx.x, lane = t & 31, group = t >> 7;
  i64 row = blockIdx.y, first_head = (i64)blockIdx.x * 64;
  const int* table = a.tables + a.table_start[row];
  const int* list = a.selected ? a.selected + row * a.width : nullptr;
  int count = list ? a.counts[row] : a.positions[row] + 1;
  int blocks = (count + 63) / 64;

  // Queries of 64 heads: 72 pieces of 8 values a head.
  const u16* q = a.q + row * a.q_stride + first_head * kWidth;
  for (int i = t; i < 64 * 72; i += 384) {
    int head = i / 72, piece = i % 72;
    uint4 from = *(const uint4*)(q + head * kWidth + piece * 8);
    store_shared(queries + (piece >> 3) * kChunkBytes + swizzled(head, piece & 7), from.x, from.y, from.z,
                 from.w);
  }
  if (t == 0) {
    for (int b = 0; b < 2; b++) {
      barrier_init(full + 8 * b, 128);
      barrier_init(empty + 8 * b, 8);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  fence_async();
  __syncthreads();

  if (group == 2) {
    // ---- producer: eight threads a token, every sixteenth token ----
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    int p = t & 7, first = (t & 127) >> 3;
    // List, block table and entry are loads that wait for one another: positions are read two blocks
    // ahead and entries looked up one ahead, so that no copy waits for its address.
    int positions[4];
    const u8* entries[4];
    auto read_positions = [&](int b) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int index = b * 64 + first + 16 * i;
        positions[i] = index < count ? (list ? __ldg(list + index) : index) : -1;
      }
    };
    auto look_up = [&]() {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int position = positions[i];
        entries[i] = nullptr;
        if (position >= 0) {
          i64 slot = (i64)__ldg(table + (position >> 6)) * 64 + (position & 63);
          entries[i] = a.cache + slot * a.entry_bytes;
        }
      }
    };
    read_positions(0);
    look_up();
    read_positions(1);
#if kFp8
    // Two passes of 16 tokens are in flight: a register takes its next piece as soon as the one it
    // held is widened, so two round trips to memory overlap and no register waits empty.
    uint4 codes[2][4], rope[2];
    float4 scales[2];
#pragma unroll
    for (int pass = 0; pass < 2; pass++) {
      const u8* entry = entries[pass];
#pragma unroll
      for (int i = 0; i < 4; i++) codes[pass][i] = load_piece(entry, 128 * i + 16 * p);
      rope[pass] = load_piece(entry, kLatent + 16 + 16 * p);
      scales[pass] = load_scales(entry);
    }
    for (int b = 0; b < blocks; b++) {
      u32 to = buffers + (b & 1) * kTileBytes;
      barrier_wait(empty + 8 * (b & 1), ((b >> 1) & 1) ^ 1);
#pragma unroll
      for (int pass = 0; pass < 4; pass++) {
        if (pass == 2) {
          look_up();
          read_positions(b + 2);
        }
        const u8* ahead = entries[(pass + 2) & 3];
        const int slot = pass & 1;
        int token = first + 16 * pass;
        float scale[4] = {scales[slot].x, scales[slot].y, scales[slot].z, scales[slot].w};
        scales[slot] = load_scales(ahead);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float wide = scale[i] * 1.329227995784916e36f;
          u32 factor = pack_bf16(wide, wide);
          u32 v[8];
          widen(codes[slot][i].x, factor, v[0], v[1]);
          widen(codes[slot][i].y, factor, v[2], v[3]);
          widen(codes[slot][i].z, factor, v[4], v[5]);
          widen(codes[slot][i].w, factor, v[6], v[7]);
          codes[slot][i] = load_piece(ahead, 128 * i + 16 * p);
          u32 chunk = to + (2 * i + (p >> 2)) * kChunkBytes;
          // Lanes of the two chunks take turns with the halves, or they would meet in one bank.
          u32 even = swizzled(token, (p & 3) * 2), odd = swizzled(token, (p & 3) * 2 + 1);
          bool swap = p >= 4;
          store_shared(chunk + (swap ? odd : even), swap ? v[4] : v[0], swap ? v[5] : v[1],
                       swap ? v[6] : v[2], swap ? v[7] : v[3]);
          store_shared(chunk + (swap ? even : odd), swap ? v[0] : v[4], swap ? v[1] : v[5],
                       swap ? v[2] : v[6], swap ? v[3] : v[7]);
        }
        store_shared(to + 8 * kChunkBytes + swizzled(token, p), rope[slot].x, rope[slot].y, rope[slot].z,
                     rope[slot].w);
        rope[slot] = load_piece(ahead, kLatent + 16 + 16 * p);
      }
      fence_async();
      barrier_arrive(full + 8 * (b & 1));
    }
#else
    for (int b = 0; b < blocks; b++) {
      u32 to = buffers + (b & 1) * kTileBytes;
      barrier_wait(empty + 8 * (b & 1), ((b >> 1) & 1) ^ 1);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const u8* entry = entries[i];
        u32 bytes = entry ? 16 : 0;
        const u8* from = entry ? entry + 16 * p : a.cache;
        u32 at = to + swizzled(first + 16 * i, p);
#pragma unroll
        for (int c = 0; c < kChunks; c++) {
          copy_async(at + c * kChunkBytes, entry ? from + 128 * c : a.cache, bytes);
        }
      }
      barrier_arrive_after_copies(full + 8 * (b & 1));
      look_up();
      read_positions(b + 2);
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
    return;
  }

  // ---- consumers: scores of 64 heads x 64 tokens, then their half of the output ----
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
  float out[128];
#pragma unroll
  for (int i = 0; i < 128; i++) out[i] = 0.f;
  float maximum[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.f, 0.f};
  float scale = a.scale.v * 1.4426950408889634f;
  int warp = (t >> 5) & 3, own_head = warp * 16 + (lane >> 2);
  float* maxima = (float*)(shared + kMaxima);

  // Scores of 64 heads and this group's 32 of the block's 64 tokens, started and not waited for.
  auto start_scores = [&](int b, float (&scores)[16]) {
    u32 buffer = buffers + (b & 1) * kTileBytes;
    barrier_wait(full + 8 * (b & 1), (b >> 1) & 1);
    fence_async();
    u64 key = k_major(buffer + group * 32 * 128), query = k_major(queries);
    // Or the compiler would keep every step's descriptor in registers through the loop.
    asm volatile("" : "+l"(query), "+l"(key));
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
#pragma unroll
      for (int k = 0; k < 4; k++) {
        u64 at = c * (kChunkBytes >> 4) + 2 * k;
        wgmma_bf16(scores, query + at, key + at, c + k > 0);
      }
    }
    wgmma_commit();
  };

  // Scores to weights in shared memory, and by how much earlier sums shrink.
  float shrink[2];
  auto softmax = [&](int b, float (&scores)[16]) {
    if (b == blocks - 1) {
#pragma unroll
      for (int i = 0; i < 16; i++) {
        int token = b * 64 + group * 32 + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
        if (token >= count) scores[i] = minus_infinity();
      }
    }
    // A thread has two heads, in the registers with bit 1 of the index clear and set.
    float top[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = scores[2 * r];
#pragma unroll
      for (int i = 0; i < 16; i++) {
        if (((i >> 1) & 1) == r) top[r] = fmaxf(top[r], scores[i]);
      }
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
      if ((lane & 3) == 0) maxima[group * 64 + own_head + 8 * r] = top[r];
    }
    // Behind this barrier both groups have summed the values of the block before.
    asm volatile("bar.sync 1, 256;" ::: "memory");
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = fmaxf(fmaxf(top[r], maxima[(group ^ 1) * 64 + own_head + 8 * r]), maximum[r]);
      shrink[r] = exp2f((maximum[r] - top[r]) * scale);
      maximum[r] = top[r];
      sum[r] *= shrink[r];
      float shift = top[r] * scale;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float low = exp2f(fmaf(scores[4 * i + 2 * r], scale, -shift));
        float high = exp2f(fmaf(scores[4 * i + 2 * r + 1], scale, -shift));
        sum[r] += low + high;
        u32 at = weights + swizzled(own_head + 8 * r, group * 4 + i) + (lane & 3) * 4;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pack_bf16(low, high)) : "memory");
      }
    }
    fence_async();
    asm volatile("bar.sync 1, 256;" ::: "memory");
  };

  auto start_values = [&](int b) {
    u32 buffer = buffers + (b & 1) * kTileBytes;
    u64 weight = k_major(weights);
    u64 value = row_major(buffer + group * 4 * kChunkBytes, kChunkBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_bf16_rows(out, weight + 2 * k, value + k * (2048 >> 4), 1);
    wgmma_commit();
  };

  // A block's scores, weights and values one after another: a look ahead at the next scores would
  // wait for a buffer that is only just being filled.
  float scores[16];
  for (int b = 0; b < blocks; b++) {
    start_scores(b, scores);
    wgmma_wait<0>();
    softmax(b, scores);
#pragma unroll
    for (int i = 0; i < 128; i++) out[i] *= shrink[(i >> 1) & 1];
    start_values(b);
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(empty + 8 * (b & 1));
  }

  // Each group has summed its own tokens.
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
  }
  asm volatile("bar.sync 1, 256;" ::: "memory");
  if ((lane & 3) == 0) {
    maxima[group * 64 + own_head] = sum[0];
    maxima[group * 64 + own_head + 8] = sum[1];
  }
  asm volatile("bar.sync 1, 256;" ::: "memory");
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] = maxima[own_head + 8 * r] + maxima[64 + own_head + 8 * r];
    i64 head = first_head + own_head + 8 * r;
    float factor = sum[r] > 0.f ? 1.f / sum[r] : 0.f;
    u16* to = a.out + row * a.out_stride + head * kLatent + group * 256 + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < 32; i++) {
      *(u32*)(to + 8 * i) = pack_bf16(out[4 * i + 2 * r] * factor, out[4 * i + 2 * r + 1] * factor);
    }
    if (a.lse && group == 0 && (lane & 3) == 0) {
      float lse = sum[r] > 0.f ? maximum[r] * a.scale.v + logf(sum[r]) : __int_as_float(0x7f800000);
      a.lse[row * a.lse_stride + head] = lse;
    }
  }
}
