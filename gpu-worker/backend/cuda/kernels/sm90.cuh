// Hopper's tensor cores and the barriers around it (PTX ISA 9.0, wgmma and mbarrier).
//
// Operand tiles lie in shared memory as rows of 128 bytes in groups of 8 rows, the 16-byte pieces
// of a row swizzled: piece p of row r lies at p ^ (r & 7). A tile starts at a multiple of 1,024
// bytes. A step along a K-major row moves a descriptor by 32 bytes, whatever the element.

// For racecheck (sm90-gemm.md says why): with kTraced = 1, what one lane says for its warp is said
// by every lane, and threads that meet do so twice. Nothing is ordered that is not ordered without.
#ifndef kTraced
#define kTraced 0
#endif
/** Arrivals of a warp at a barrier. */
#define kWarpArrivals (kTraced ? 32 : 1)

__device__ __forceinline__ u32 shared_address(const void* p) {
  return (u32)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ u32 swizzled(u32 row, u32 piece) {
  return row * 128 + ((piece ^ (row & 7)) << 4);
}

/** Rows are the outer dimension, the summed one runs along the 128 bytes. */
__device__ __forceinline__ u64 k_major(u32 address) {
  return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

/** Rows are the summed dimension; `chunk_bytes` from 64 columns of bf16 to the next 64. */
__device__ __forceinline__ u64 row_major(u32 address, u32 chunk_bytes) {
  return (u64)((address & 0x3ffff) >> 4) | (u64)(chunk_bytes >> 4) << 16 |
         (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kLeft>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
/** Makes ordinary writes to shared memory visible to the tensor cores. */
__device__ __forceinline__ void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/**
 * The thread's loads from shared memory have come, so that a copy of the engine may be let in
 * there. An arrival alone does not wait for loads, which can be held up for longer than a copy
 * takes.
 */
__device__ __forceinline__ void loads_done() { fence_async(); }

__device__ __forceinline__ void copy_async(u32 to, const void* from, u32 bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void barrier_init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/** A warp arrives, once all of its lanes are here. */
__device__ __forceinline__ void warp_arrive(u32 barrier) {
  __syncwarp();
  if (kTraced || (threadIdx.x & 31) == 0) barrier_arrive(barrier);
}
/** So many threads of the block meet at one of its 16 barriers. */
template <int kBarrier, int kThreadsThere>
__device__ __forceinline__ void threads_meet() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreadsThere) : "memory");
  if (kTraced) asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreadsThere) : "memory");
}
/** Arrives once the thread's copies so far have landed. */
__device__ __forceinline__ void barrier_arrive_after_copies(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "wait_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait_%=;\n}\n" ::"r"(barrier), "r"(parity)
      : "memory");
}
/** The barrier's phase ends once `bytes` have been copied, and all arrivals are there. */
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/** `bytes` and both addresses are multiples of 16. */
__device__ __forceinline__ void copy_bulk(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

/** Four 8 x 8 matrices of bf16; lane l says where row l % 8 of matrix l / 8 goes. */
__device__ __forceinline__ void store_matrices(u32 to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- products of 64 rows on the tensor cores: d (+)= a b ----
//
// d are the instruction's accumulators: register 4 j + 2 h + i of a lane holds row 16 warp + lane /
// 4 + 8 h, column 8 j + 2 (lane % 4) + i. Both operands come from shared memory by K-major
// descriptors unless a name or a parameter says otherwise. `keep` 0 begins a sum.

#define LIST_4 "%0, %1, %2, %3"
#define LIST_8 LIST_4 ", %4, %5, %6, %7"
#define LIST_16 LIST_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST_32 \
  LIST_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_64                                                                                \
  LIST_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
          "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_128                                                                               \
  LIST_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
          "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "   \
          "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "   \
          "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, "     \
          "%123, %124, %125, %126, %127"
#define SUMS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define SUMS_8(i) SUMS_4(i), SUMS_4((i) + 4)
#define SUMS_16(i) SUMS_8(i), SUMS_8((i) + 8)
#define SUMS_32(i) SUMS_16(i), SUMS_16((i) + 16)
#define SUMS_64(i) SUMS_32(i), SUMS_32((i) + 32)
#define SUMS_128(i) SUMS_64(i), SUMS_64((i) + 64)

#define PRODUCT(name, shape, types, flags, registers, a_at, b_at, keep_at)                      \
  __device__ __forceinline__ void name(float (&d)[registers], u64 a, u64 b, int keep) {         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" keep_at ", 0;\n"                          \
                 "wgmma.mma_async.sync.aligned." shape ".f32." types " {" LIST_##registers "}, " \
                 "%" a_at ", %" b_at ", p, " flags ";\n}\n"                                     \
                 : SUMS_##registers(0)                                                          \
                 : "l"(a), "l"(b), "r"(keep));                                                  \
  }
#define PRODUCTS(columns, registers, a_at, b_at, keep_at)                                        \
  PRODUCT(wgmma_e4m3, "m64n" #columns "k32", "e4m3.e4m3", "1, 1", registers, a_at, b_at, keep_at) \
  PRODUCT(wgmma_bf16, "m64n" #columns "k16", "bf16.bf16", "1, 1, 0, 0", registers, a_at, b_at,    \
          keep_at)

PRODUCTS(8, 4, "4", "5", "6")
PRODUCTS(16, 8, "8", "9", "10")
PRODUCTS(32, 16, "16", "17", "18")
PRODUCTS(64, 32, "32", "33", "34")
PRODUCTS(128, 64, "64", "65", "66")
PRODUCTS(256, 128, "128", "129", "130")

/**
 * d += a b, b by rows: the summed dimension is the outer one; a from registers as two rows of four
 * pairs of bf16.
 */
#define PRODUCTS_BY_ROWS(columns, registers, first, second, third, fourth, fifth)                \
  __device__ __forceinline__ void wgmma_bf16_rows(float (&d)[registers], u64 a, u64 b) {         \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns                                    \
                 "k16.f32.bf16.bf16 {" LIST_##registers                                          \
                 "}, "                                                                           \
                 "%" first ", %" second ", 1, 1, 1, 0, 1;\n"                                     \
                 : SUMS_##registers(0)                                                           \
                 : "l"(a), "l"(b));                                                              \
  }                                                                                              \
  __device__ __forceinline__ void wgmma_bf16_rows(float (&d)[registers], u32 a0, u32 a1, u32 a2, \
                                                  u32 a3, u64 b) {                               \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns                                    \
                 "k16.f32.bf16.bf16 {" LIST_##registers                                          \
                 "}, "                                                                           \
                 "{%" first ", %" second ", %" third ", %" fourth "}, %" fifth ", 1, 1, 1, 1;\n" \
                 : SUMS_##registers(0)                                                           \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));                                  \
  }

PRODUCTS_BY_ROWS(128, 64, "64", "65", "66", "67", "68")
PRODUCTS_BY_ROWS(256, 128, "128", "129", "130", "131", "132")
