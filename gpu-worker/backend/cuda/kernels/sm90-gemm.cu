// out = x W^T on the tensor cores for many rows: bf16 (kFp8 = 0), or e4m3 with a scale per 128
// inputs of x and per 128 x 128 block of W, each 128 inputs promoted to float32 sums
// (docs/engine-spec.md#linear-layers). The sums and the ladder of versions: sm90-gemm.md.
//
// One block per SM takes tile after tile. A producer thread feeds kStages buffers of 128
// bytes of inputs for kRows rows of x and kColumns outputs of W through the copy engine; kGroups
// consumer warpgroups multiply 64 rows each, in e4m3 by turns: one scales its sums while the matrix
// unit is another's. A cluster of two blocks works on two neighbouring tiles of outputs: each block
// copies half of the rows of x into both.
//
// Every output sums its inputs in one order whatever the tile: kSplit runs of stages, each from
// zero, then the runs in order. sm90-gemm-few.cu sums in the same order, so that a row has the same
// bits in a prefill and in a decode step, whatever rows are beside it.

// gemm-plan.ts gives these, the number of stages and what they take of shared memory among them.
#ifndef kFp8
#define kFp8 1
#define kColumns 128
#define kSplit 1
#define kGroups 2
#define kStages 6
#define kSharedBytes 232448
#endif
#define kRows (64 * kGroups)
#define kThreads (128 * (kGroups + 1))
#define kBoxRows 64
#define kBoxBytes (kBoxRows * 128)
#define kStageBytes ((kRows + kColumns) * 128)
/** Scales of a stage: of the rows, and of the weight's block, each from 16 whole bytes on. */
#define kRowScaleBytes (kRows * 4 + 16)
#define kScaleBytes (kFp8 ? kRowScaleBytes + 16 : 0)
#define kStageInputs (kFp8 ? 128 : 64)
/** Bytes of a warp's piece on its way out: 32 columns of its 16 rows, in bf16. */
#define kPieceBytes 1024
#define kBarriers (kStages * (kStageBytes + kScaleBytes))
#define kPieces ((kBarriers + kStages * 16 + 127) / 128 * 128)
#define kUsedBytes (kPieces + 4 * kGroups * kPieceBytes)
#define kProducerRegisters (kGroups == 3 ? 32 : 40)
#define kConsumerRegisters (kGroups == 3 ? 160 : 232)
/** Row tiles whose outputs are computed together, so that the weights they share stay in L2. */
#define kBand 16
static_assert(kUsedBytes <= kSharedBytes, "the plan gives a block too little shared memory");
static_assert(128 * (kProducerRegisters + kGroups * kConsumerRegisters) <= 65536,
              "too many registers");

struct GemmItem : GemmTile {
  i64 column;
  int batch, w_batch;  // in the map of w: of an expert where its weight begins
};

/** The place of a cluster among the items: batch after batch, band after band of row tiles. */
struct GemmCursor {
  int index, first, batch;  // within the band; the band's first row tile
};

/**
 * The item `step` behind the cursor's; false behind the last one. Experts are bands of one tile.
 */
__device__ __forceinline__ bool find_item(const GemmArgs& a, int step, GemmCursor& cursor, u32 rank,
                                          GemmItem& item) {
  int pairs = (int)((a.outputs + 2 * kColumns - 1) / (2 * kColumns));
  int row_tiles = (int)a.row_tiles, band;
  for (cursor.index += step;; cursor.index -= band * pairs, cursor.first += band) {
    if (cursor.first >= row_tiles) {
      cursor.first = 0;
      cursor.batch++;
    }
    band = a.tiles ? 1 : min(kBand, row_tiles - cursor.first);
    if (cursor.batch >= (int)a.batches || cursor.index < band * pairs) break;
  }
  if (cursor.batch >= (int)a.batches) return false;
  int pair = band == 1 ? cursor.index : band == kBand ? cursor.index / kBand : cursor.index / band;
  item.column = (i64)(2 * pair + (int)rank) * kColumns;
  item.batch = cursor.batch;
  bool found = find_tile(a, cursor.first + cursor.index - pair * band, kRows, item);
  item.w_batch = a.tiles ? (int)(((const u8*)item.w - a.w_base) >> 8) : item.batch;
  if (kFp8 && item.column < a.outputs) {
    item.w_scales += (item.column / kScaleGroup) * ((a.inputs + kScaleGroup - 1) / kScaleGroup);
  }
  return found;
}

/**
 * Waits until the warpgroup before this one has given the tensor cores over; gives it to the next.
 */
__device__ __forceinline__ void take_turn(int group) {
  asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}
__device__ __forceinline__ void give_turn(int group) {
  asm volatile("bar.arrive %0, 256;" ::"r"(group + 1 == kGroups ? 1 : group + 2) : "memory");
}

/**
 * A warp's 16 rows of sums to memory as bf16, 16 bytes a lane: through `pieces`, where row r has 64
 * bytes and its 16-byte pieces are swizzled by r / 2. `rows` are inside, `columns` too.
 */
__device__ __forceinline__ void store_bf16(float (&sums)[kColumns / 2], u32 pieces, u16* out,
                                           i64 out_stride, i64 rows, i64 columns) {
  int lane = threadIdx.x & 31;
  int matrix_row = (lane & 7) + (lane & 8), matrix_piece = lane >> 4;
  int row = lane >> 2, piece = lane & 3;
#pragma unroll
  for (int c = 0; c < kColumns / 32; c++) {
    __syncwarp();
#pragma unroll
    for (int p = 0; p < 4; p += 2) {
      u32 v[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int from = 16 * c + 4 * (p + (i >> 1)) + 2 * (i & 1);
        v[i] = pack_bf16(sums[from], sums[from + 1]);
      }
      u32 at = matrix_row * 64 + (((matrix_piece + p) ^ ((matrix_row >> 1) & 3)) << 4);
      store_matrices(pieces + at, v[0], v[1], v[2], v[3]);
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int r = row + 8 * half;
      u32 at = pieces + r * 64 + ((piece ^ ((r >> 1) & 3)) << 4);
      u32 v[4];
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                   : "r"(at)
                   : "memory");
      int column = 32 * c + 8 * piece;
      if (r < rows && column < columns) {
        *(uint4*)(out + r * out_stride + column) = make_uint4(v[0], v[1], v[2], v[3]);
      }
    }
  }
}

/** The sums of a warp's 16 rows from `row` on to memory. */
__device__ __forceinline__ void store_sums(const GemmArgs& a, const GemmItem& item, i64 row,
                                           u32 pieces, float (&sums)[kColumns / 2]) {
  i64 start = row * a.out_stride + item.batch * a.out_batch + item.column;
  i64 rows = item.row_end - row, columns = a.outputs - item.column;
  bool bf16 = a.out_dtype == kDtypeBf16;
  bool whole = ((u64)a.out | (u64)a.out_stride * 2 | (u64)a.out_batch * 2) % 16 == 0 &&
               a.outputs % 8 == 0;
  if (bf16 && whole) {
    store_bf16(sums, pieces, (u16*)a.out + start, a.out_stride, rows, columns);
    return;
  }
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < kColumns / 2; i++) {
    int r = (lane >> 2) + 8 * ((i >> 1) & 1), column = 8 * (i >> 2) + 2 * (lane & 3) + (i & 1);
    if (r >= rows || column >= columns) continue;
    i64 at = start + r * a.out_stride + column;
    if (bf16) {
      store((u16*)a.out + at, sums[i]);
    } else {
      store((float*)a.out + at, sums[i]);
    }
  }
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
sm90_gemm(const __grid_constant__ MappedGemmArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  u32 base = shared_address(shared);
  u32 full = base + kBarriers, empty = full + 8 * kStages;
  int t = threadIdx.x, lane = t & 31, group = __shfl_sync(0xffffffffu, t >> 7, 0);
  u32 rank = cluster_rank();
  int stages_total = (int)((a.inputs + kStageInputs - 1) / kStageInputs);
  int run_stages = (stages_total + kSplit - 1) / kSplit;
  int clusters = gridDim.x >> 1;
  GemmCursor cursor = {(int)(blockIdx.x >> 1) - clusters, 0, 0};
  if (t == 0) {
    for (int s = 0; s < kStages; s++) {
      barrier_init(full + 8 * s, 1);
      // Both blocks write into this one's buffers: the consumers of both give them back.
      barrier_init(empty + 8 * s, 8 * kGroups * kWarpArrivals);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_meet();

  if (group == kGroups) {
    // ---- producer ----
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (t == 128 * kGroups) {
      prefetch_map(&a.x_map);
      prefetch_map(&a.w_map);
      int stage = 0;
      u32 parity = 1;
      GemmItem item;
      while (find_item(a, clusters, cursor, rank, item)) {
#pragma unroll 1
        for (int s = 0; s < stages_total; s++) {
          u32 to = base + stage * kStageBytes, barrier = full + 8 * stage;
          barrier_wait(empty + 8 * stage, parity);
          barrier_expect(barrier, kStageBytes + kScaleBytes);
          int input = s * kStageInputs;
          copy_box_to(to + rank * (kRows / 2) * 128, &a.x_map, barrier, input, item.batch,
                      (int)item.row + rank * (kRows / 2), 3);
#pragma unroll
          for (int b = 0; b < kColumns / kBoxRows; b++) {
            copy_box(to + kRows * 128 + b * kBoxBytes, &a.w_map, barrier, input, item.w_batch,
                     (int)item.column + b * kBoxRows);
          }
#if kFp8
          u32 scales = base + kStages * kStageBytes + stage * kScaleBytes;
          const float* x_scales = a.x_scales + s * a.x_scale_stride + (item.row & ~3ll);
          copy_bulk(scales, x_scales, kRowScaleBytes, barrier);
          copy_bulk(scales + kRowScaleBytes, (const void*)((u64)(item.w_scales + s) & ~15ull), 16,
                    barrier);
#endif
          if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
    }
  } else {
    // ---- consumers ----
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    int warp_row = group * 64 + ((t >> 5) & 3) * 16;
    u32 pieces = base + kPieces + (t >> 5) * kPieceBytes;
    int stage = 0;
    u32 parity = 0;
    auto give_back = [&](int s) {
      __syncwarp();
      if (kTraced) {
        barrier_arrive_at(empty + 8 * s, 0);
        barrier_arrive_at(empty + 8 * s, 1);
      } else if (lane < 2) {
        barrier_arrive_at(empty + 8 * s, lane);
      }
    };
    auto next_stage = [&]() {
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    };
#if kFp8
    if (group == kGroups - 1) give_turn(group);
#endif
    GemmItem item;
    while (find_item(a, clusters, cursor, rank, item)) {
      if (item.row + group * 64 >= item.row_end) {
#pragma unroll 1
        for (int s = 0; s < stages_total; s++) {
          barrier_wait(full + 8 * stage, parity);
#if kFp8
          take_turn(group);
          give_turn(group);
#endif
          give_back(stage);
          next_stage();
        }
        continue;
      }
#if kFp8
      int row_scale = (int)(item.row & 3) + warp_row + (lane >> 2);
      int w_scale = (int)((u64)item.w_scales >> 2);
#endif
      float total[kColumns / 2];
#if kSplit > 1
      float runs[kColumns / 2];
#pragma unroll
      for (int i = 0; i < kColumns / 2; i++) runs[i] = 0.f;
#endif
      for (int begin = 0; begin < stages_total; begin += run_stages) {
        int end = min(begin + run_stages, stages_total);
#if kFp8
#pragma unroll
        for (int i = 0; i < kColumns / 2; i++) total[i] = 0.f;
#endif
        for (int s = begin; s < end; s++) {
          u32 at = base + stage * kStageBytes;
          barrier_wait(full + 8 * stage, parity);
          u64 xd = k_major(at + group * kBoxBytes), wd = k_major(at + kRows * 128);
#if kFp8
          const float* scales =
              (const float*)(shared + kStages * kStageBytes + stage * kScaleBytes);
          float scale = scales[kRowScaleBytes / 4 + ((w_scale + s) & 3)];
          float scale0 = scales[row_scale] * scale, scale1 = scales[row_scale + 8] * scale;
          float part[kColumns / 2];
          take_turn(group);
          wgmma_fence();
          wgmma_e4m3(part, xd, wd, 0);
          wgmma_commit();
#pragma unroll
          for (int k = 1; k < 4; k++) wgmma_e4m3(part, xd + 2 * k, wd + 2 * k, 1);
          wgmma_commit();
          // Starting the next group's products takes as long as the rest of these run.
          wgmma_wait<1>();
          give_turn(group);
          wgmma_wait<0>();
          loads_done();
          give_back(stage);
#pragma unroll
          for (int i = 0; i < kColumns / 2; i += 4) {
            total[i] = fmaf(part[i], scale0, total[i]);
            total[i + 1] = fmaf(part[i + 1], scale0, total[i + 1]);
            total[i + 2] = fmaf(part[i + 2], scale1, total[i + 2]);
            total[i + 3] = fmaf(part[i + 3], scale1, total[i + 3]);
          }
#else
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < 4; k++) wgmma_bf16(total, xd + 2 * k, wd + 2 * k, k > 0 || s > begin);
          wgmma_commit();
          // A stage's products run while the next stage is waited for.
          wgmma_wait<1>();
          if (s > begin) give_back(stage == 0 ? kStages - 1 : stage - 1);
#endif
          next_stage();
        }
#if !kFp8
        wgmma_wait<0>();
        give_back(stage == 0 ? kStages - 1 : stage - 1);
#endif
#if kSplit > 1
#pragma unroll
        for (int i = 0; i < kColumns / 2; i++) runs[i] += total[i];
#endif
      }
#if kSplit > 1
      store_sums(a, item, item.row + warp_row, pieces, runs);
#else
      store_sums(a, item, item.row + warp_row, pieces, total);
#endif
    }
#if kFp8
    if (group == 0) take_turn(group);
#endif
  }
  // Neither block may end while the other still writes into it.
  cluster_meet();
}
