// The kernel of sm90-sparse-mla.cuh over 656-byte fp8 entries (kFp8 = 1): eight warps load codes
// into registers, dequantize them to bf16 and store them.
//
// With kCtas = 2, a cluster takes 128 heads: each of its two thread blocks gathers and dequantizes
// half of the tokens and writes them to both shared memories, so that an entry is read once for a
// row.
//
// Requires: scales of entries below 256.

/** 16 bytes to the other block, counted by its barrier when they are there. */
__device__ __forceinline__ void store_remote(u32 to, u32 barrier, uint4 v) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
      "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w),
      "r"(barrier)
      : "memory");
}

/** Four e4m3 codes times a scale as two pairs of bf16; `factor` holds scale * 2^120 twice. */
__device__ __forceinline__ void dequantize(u32 codes, u32 factor, u32& low, u32& high) {
  // Bytes with their sign spread over the byte above: shifted by 4, the sign ends at bit 15 of each
  // half, exponent and mantissa where a bf16 has its low exponent and high mantissa bits.
  u32 a, b;
  asm("prmt.b32 %0, %1, 0, 0x9180;" : "=r"(a) : "r"(codes));
  asm("prmt.b32 %0, %1, 0, 0xb3a2;" : "=r"(b) : "r"(codes));
  a = (a << 4) & 0x87f087f0;
  b = (b << 4) & 0x87f087f0;
  asm volatile("mul.rn.bf16x2 %0, %1, %2;" : "=r"(low) : "r"(a), "r"(factor));
  asm volatile("mul.rn.bf16x2 %0, %1, %2;" : "=r"(high) : "r"(b), "r"(factor));
}

// Loads are volatile, so that they stay where they are issued. An entry's place counts 16 bytes
// from the start of the cache; below 0 there is none.
__device__ __forceinline__ uint2 load_8(const u8* from, u32 place) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.b32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(from + (u64)place * 16));
  return v;
}

__device__ __forceinline__ uint4 load_16(const u8* from, int place) {
  uint4 v;
  asm volatile(
      "{\n.reg .pred there;\nsetp.ge.s32 there, %5, 0;\n"
      "mov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\nmov.b32 %3, 0;\n"
      "@there ld.global.nc.L1::no_allocate.L2::256B.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(from + (u64)(u32)place * 16), "r"(place));
  return v;
}

__device__ __forceinline__ float load_scale(const u8* from, int place) {
  float v;
  asm volatile(
      "{\n.reg .pred there;\nsetp.ge.s32 there, %2, 0;\nmov.b32 %0, 0;\n"
      "@there ld.global.nc.b32 %0, [%1];\n}\n"
      : "=&f"(v)
      : "l"(from + (u64)(u32)place * 16), "r"(place));
  return v;
}

/** A slice is some tokens of a half of the columns; a half takes so many. */
#define kSliceTokens (kOwn < 8 ? kOwn : 8)
#define kSlices (kOwn / kSliceTokens)
/** Slices whose loads are in flight: of few tokens two. */
#define kHeld (kOwn < 8 ? 2 : 1)

__device__ __forceinline__ void produce(const SparseMlaArgs& a, u32 base) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) - 8;
  const u32 rank = cluster_rank(), there = other_block(base) - base;
  const u32 barriers = base + kBarriers;
  BlockStream blocks(a, warp);

  // Slices in registers: a few tokens of a half, a lane holding its 8 columns of each.
  uint2 piece[kHeld][kSliceTokens];
  float scale[kHeld];
  uint4 rope[kSliceTokens / 4];
  auto load_slice = [&](int held, int places, int sub, u32 half) {
    const u8* from = a.cache + half * 256 + lane * 8;
    // Lane 2j + g has token j's scale of the half's group g. Where there is no token the scale is
    // 0, and whatever is read as codes comes to 0 with it.
    int place = __shfl_sync(0xffffffffu, places, sub * 8 + ((lane >> 1) & (kSliceTokens - 1)));
    scale[held] = load_scale(a.cache + kLatent + (half * 2 + (lane & 1)) * 4, place);
#pragma unroll
    for (int j = 0; j < kSliceTokens; j++) {
      piece[held][j] = load_8(from, max(__shfl_sync(0xffffffffu, places, sub * 8 + j), 0));
    }
  };
  auto load_rope = [&](int places, int sub) {
#pragma unroll
    for (int i = 0; i < kSliceTokens / 4; i++) {
      int place = __shfl_sync(0xffffffffu, places, sub * 8 + 4 * i + (lane >> 3));
      rope[i] = load_16(a.cache + kLatent + 16 + (lane & 7) * 16, place);
    }
  };
#pragma unroll
  for (int s = 0; s < kHeld; s++) load_slice(s, blocks.place_now, s % kSlices, s < kSlices ? 0 : 1);
  load_rope(blocks.place_now, 0);

  u32 fills = 0, rows_begun = 0;
  while (blocks.meta_now >= 0) {
    const u32 buffer = blocks.meta_now & 1, buffer_next = blocks.meta_next & 1;
    if (blocks.meta_now & 2)
      bring_queries(a, base, work_at(a, blocks.meta_now >> 2, 0), rows_begun++);
    const u32 tile = base + kBuffers + buffer * kTileBytes;
    const u32 row = (rank * kProducerWarps + warp) * kOwn;
#pragma unroll
    for (int s = 0; s < 2 * kSlices; s++) {
      const int far = s / kSlices, sub = s % kSlices, held = s % kHeld;
      const int later = (s + kHeld) % (2 * kSlices), later_far = later / kSlices;
      const bool same = s + kHeld < 2 * kSlices;
      const u32 half = buffer ^ far, later_half = (same ? buffer : buffer_next) ^ later_far;
      const u32 full = barriers + kFull(buffer, far);
      // Ready before the buffer is free, but for what the assembler leaves between the stores.
      uint4 wide[kSliceTokens];
      float unbiased = scale[held] * 1.329227995784916e36f;
      u32 factors = pack_bf16(unbiased, unbiased);
#pragma unroll
      for (int j = 0; j < kSliceTokens; j++) {
        u32 factor = __shfl_sync(0xffffffffu, factors, 2 * j + (lane >> 4));
        dequantize(piece[held][j].x, factor, wide[j].x, wide[j].y);
        dequantize(piece[held][j].y, factor, wide[j].z, wide[j].w);
      }
      if (sub == 0) barrier_wait(barriers + kEmpty(buffer, far), ((fills >> buffer) & 1) ^ 1);
      // A slice's first row is a multiple of its tokens: 128 j and the swizzle of row j's piece
      // flip bits of the first one's address and carry nothing.
      const u32 first = row + sub * 8, piece_at = (lane & 7) ^ (first & 7);
      const u32 to = tile + (half * 4 + (lane >> 3)) * kChunkBytes + first * 128 + piece_at * 16;
#pragma unroll
      for (int j = 0; j < kSliceTokens; j++) {
        const u32 to_row = j * (128 + 16);
        store_shared(to ^ to_row, wide[j]);
#if kCtas == 2
        store_remote((to + there) ^ to_row, full + there, wide[j]);
#endif
      }
      if (far) {
#pragma unroll
        for (int i = 0; i < kSliceTokens / 4; i++) {
          u32 at = tile + 8 * kChunkBytes + swizzled(first + 4 * i + (lane >> 3), lane & 7);
          store_shared(at, rope[i]);
#if kCtas == 2
          store_remote(at + there, full + there, rope[i]);
#endif
        }
      }
      if (sub == kSlices - 1) {
        // Whoever reads fences, once the barrier is passed. A fence here would wait for loads as
        // well.
        __syncwarp();
        // The other block writes as much as this one.
        if (kTraced || lane == 0) {
          if (kCtas == 2 && warp == 0 && lane == 0) barrier_expect(full, 32 * 128 * (far ? 5 : 4));
          else barrier_arrive(full);
        }
      }
      // Uses of earlier loads stand before later loads: the few scoreboards are shared.
      if (s == 2 * kSlices - 1) blocks.look_up();
      load_slice(held, same ? blocks.place_now : blocks.place_next, later % kSlices, later_half);
      if (far)
        load_rope(sub + 1 < kSlices ? blocks.place_now : blocks.place_next, (sub + 1) % kSlices);
    }
    fills ^= 1 << buffer;
    blocks.shift();
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
#if kCtas == 2
    __cluster_dims__(2, 1, 1)
#endif
    sm90_sparse_mla(const __grid_constant__ SparseMlaArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  const u32 base = shared_address(shared);
  init_barriers(base);
#if kCtas == 2
  cluster_sync();
#endif
  const int group = threadIdx.x >> 7;
  if (group >= 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    produce(a, base);
  } else if (group == 0) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<0>(a, shared, base);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<1>(a, shared, base);
  }
#if kCtas == 2
  // Neither block may end while the other still writes to its shared memory.
  cluster_sync();
#endif
}
