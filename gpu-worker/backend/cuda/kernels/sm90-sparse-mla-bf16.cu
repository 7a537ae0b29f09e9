// The kernel of sm90-sparse-mla.cuh over bf16 entries (kFp8 = 0): four warps copy them from L2 to
// shared memory without a register between, for a block's heads each time they are asked for. A
// block table leads to the entries of a cache; entries dequantized from fp8 for a step
// (dequant_entries) lie in order.

/** Blocks that take the heads of one row, 2 for any number above 1. */
#ifndef kBlocksOfRow
#define kBlocksOfRow 2
#endif

__device__ __forceinline__ void copy_16(u32 to, const u8* from, u32 bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void produce(const SparseMlaArgs& a, u32 base) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) - 8;
  const u32 barriers = base + kBarriers;
  BlockStream blocks(a, warp);
  u32 fills = 0, rows_begun = 0;
  while (blocks.meta_now >= 0) {
    const u32 buffer = blocks.meta_now & 1;
    if (blocks.meta_now & 2)
      bring_queries(a, base, work_at(a, blocks.meta_now >> 2, 0), rows_begun++);
    // If entries come from beyond L2, the next block's are brought there: half of them each by
    // the blocks of neighbouring heads, if there are two.
    const bool is_mine = kBlocksOfRow == 1 || (lane >> 3) == (blockIdx.x & 1);
    if (a.prefetch && lane < kOwn && is_mine && blocks.place_next >= 0) {
      const u8* entry = a.cache + (u64)(u32)blocks.place_next * 16;
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(entry), "n"(kEntryBytes)
                   : "memory");
    }
    // Eight lanes bring 128 bytes of a token at a time; zeros where there is none.
    const u32 tile = base + kBuffers + buffer * kTileBytes;
    const u8* from[kOwn / 4];
    u32 to[kOwn / 4], bytes[kOwn / 4];
#pragma unroll
    for (int i = 0; i < kOwn / 4; i++) {
      int token = 4 * i + (lane >> 3), place = __shfl_sync(0xffffffffu, blocks.place_now, token);
      from[i] = a.cache + (u64)(u32)max(place, 0) * 16 + (lane & 7) * 16;
      to[i] = tile + swizzled(warp * kOwn + token, lane & 7);
      bytes[i] = place < 0 ? 0 : 16;
    }
#pragma unroll
    for (int far = 0; far < 2; far++) {
      const u32 first = (buffer ^ far) * 4;
      barrier_wait(barriers + kEmpty(buffer, far), ((fills >> buffer) & 1) ^ 1);
#pragma unroll
      for (int c = 0; c < 4; c++) {
#pragma unroll
        for (int i = 0; i < kOwn / 4; i++) {
          copy_16(to[i] + (first + c) * kChunkBytes, from[i] + (first + c) * 128, bytes[i]);
        }
      }
      if (far) {
#pragma unroll
        for (int i = 0; i < kOwn / 4; i++)
          copy_16(to[i] + 8 * kChunkBytes, from[i] + 8 * 128, bytes[i]);
      }
      barrier_arrive_after_copies(barriers + kFull(buffer, far));
    }
    fills ^= 1 << buffer;
    blocks.look_up();
    blocks.shift();
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sm90_sparse_mla(const __grid_constant__ SparseMlaArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  const u32 base = shared_address(shared);
  init_barriers(base);
  const int group = threadIdx.x >> 7;
  if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    produce(a, base);
  } else if (group == 0) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<0>(a, shared, base);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<1>(a, shared, base);
  }
}

struct DequantArgs {
  u16* out;         // [tokens, 576] bf16
  const u8* cache;  // [slots, 656 bytes]
  const int* table;  // block table of the sequence
  i64 tokens;
};

/** A sequence's entries in order, dequantized: a warp takes an entry. */
extern "C" __global__ void __launch_bounds__(256)
    dequant_entries(const __grid_constant__ DequantArgs a) {
  i64 token = (i64)blockIdx.x * 8 + (threadIdx.x >> 5);
  int lane = threadIdx.x & 31;
  if (token >= a.tokens) return;
  i64 slot = (i64)__ldg(a.table + (token >> 6)) * 64 + (token & 63);
  Bf16Entry wide = dequant_entry(a.cache + slot * 656);
  u16* out = a.out + token * kQueryWidth;
  uint4* to = (uint4*)(out + lane * 16);
  to[0] = wide.low;
  to[1] = wide.high;
  ((u32*)(out + kLatent))[lane] = wide.rope;
}
