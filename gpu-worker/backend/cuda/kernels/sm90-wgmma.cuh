// Products of 64 rows on the matrix unit for every width that a tile uses: d (+)= a b, both operands
// in shared memory by K-major descriptors, d as the instruction's accumulators: register
// 4 j + 2 h + i of a lane holds row 16 warp + lane / 4 + 8 h, column 8 j + 2 (lane % 4) + i.

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
  PRODUCT(multiply_e4m3, "m64n" #columns "k32", "e4m3.e4m3", "1, 1", registers, a_at, b_at, keep_at) \
  PRODUCT(multiply_bf16, "m64n" #columns "k16", "bf16.bf16", "1, 1, 0, 0", registers, a_at, b_at,    \
          keep_at)

PRODUCTS(8, 4, "4", "5", "6")
PRODUCTS(16, 8, "8", "9", "10")
PRODUCTS(32, 16, "16", "17", "18")
PRODUCTS(64, 32, "32", "33", "34")
PRODUCTS(128, 64, "64", "65", "66")
PRODUCTS(256, 128, "128", "129", "130")

// ---- the bulk copy engine and clusters -----------------------------------------------------------

/** The barrier's phase ends once `bytes` have been copied, and all arrivals are there. */
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

/** Arrives at the barrier that lies at the same place in block `rank` of the cluster. */
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

/** Fetches a tensor map ahead of its first use. */
__device__ __forceinline__ void prefetch_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/** A box of the tensor [rows, batch, inputs] at (input, batch, row) into swizzled rows of 128 bytes. */
__device__ __forceinline__ void copy_box(u32 to, const void* map, u32 barrier, int input, int batch,
                                         int row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to), "l"(map), "r"(barrier), "r"(input), "r"(batch),
      "r"(row)
      : "memory");
}

/** The same into the blocks of the cluster that `mask` names, each signalling its own barrier. */
__device__ __forceinline__ void copy_box_to(u32 to, const void* map, u32 barrier, int input,
                                            int batch, int row, u16 mask) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to), "l"(map), "r"(barrier),
      "r"(input), "r"(batch), "r"(row), "h"(mask)
      : "memory");
}

/** `bytes` and both addresses are multiples of 16. */
__device__ __forceinline__ void copy_bulk(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/** All threads of the cluster meet, and no more: no memory is waited for. */
__device__ __forceinline__ void cluster_meet() {
  asm volatile(
      "barrier.cluster.arrive.relaxed;\n"
      "barrier.cluster.wait;" ::: "memory");
}

/** All threads of the cluster; writes to shared memory before it are seen behind it. */
__device__ __forceinline__ void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::: "memory");
}

__device__ __forceinline__ float4 load_cluster(u32 address, u32 rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [remote];\n}\n"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(address), "r"(rank)
      : "memory");
  return v;
}
