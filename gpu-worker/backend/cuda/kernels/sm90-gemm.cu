// out = x W^T on the matrix unit for many rows: bf16 (kFp8 = 0), or e4m3 with a scale per 128 inputs
// of x and per 128 x 128 block of W, each 128 inputs promoted to float32 sums (engine-spec 3.2).
// The sums and the ladder of versions: sm90-gemm.md.
//
// 384 threads, one block per multiprocessor that takes tile after tile. A producer thread feeds
// kStages buffers of 128 bytes of inputs for 128 rows of x and kColumns outputs of W through the copy
// engine; two consumer warpgroups multiply 64 rows each. A cluster of two blocks works on two
// neighbouring tiles of outputs: each block copies half of the rows of x into both.
//
// Every output sums its inputs in one order whatever the tile: kSplit runs of stages, each from zero,
// then the runs in order. sm90-gemm-few.cu sums in the same order, so that a row has the same bits in
// a prefill and in a decode step, whatever rows are beside it.

#ifndef kFp8
#define kFp8 1
#define kColumns 128
#define kSplit 1
#endif
#define kRows 128
#define kStages (kColumns == 256 ? 4 : 6)
#define kBoxRows 64
#define kBoxBytes (kBoxRows * 128)
#define kStageBytes ((kRows + kColumns) * 128)
/** Row scales of a stage begin at a multiple of 16 bytes at or before the tile's first row. */
#define kScaleBytes (kFp8 ? kRows * 4 + 16 : 0)
#define kStageInputs (kFp8 ? 128 : 64)
#define kBarriers (kStages * (kStageBytes + kScaleBytes))
#define kSharedBytes (kBarriers + kStages * 16)
#define kProducerRegisters 40
#define kConsumerRegisters 232
/** Row tiles whose outputs are computed together, so that the weights they share stay in L2. */
#define kBand 16
static_assert(kSharedBytes <= 232448, "a block has no more shared memory");
static_assert(128 * kProducerRegisters + 256 * kConsumerRegisters <= 65536, "too many registers");

struct GemmItem : GemmTile {
  i64 column;
  int batch, w_batch;  // in the map of w: of an expert where its weight begins
};

/** Work item `index` of this block; false behind the last one. */
__device__ __forceinline__ bool find_item(const GemmArgs& a, int index, u32 rank, GemmItem& item) {
  int pairs = (int)((a.outputs + 2 * kColumns - 1) / (2 * kColumns));
  int row_tiles = (int)a.row_tiles;
  if (index >= pairs * row_tiles * (int)a.batches) return false;
  item.batch = index / (pairs * row_tiles);
  index -= item.batch * pairs * row_tiles;
  int tile, pair;
  if (a.tiles) {
    // All outputs of a tile one after another: an expert's weights are read once.
    tile = index / pairs;
    pair = index % pairs;
  } else {
    int first = index / (kBand * pairs) * kBand;
    int band = min(kBand, row_tiles - first);
    index -= first * pairs;
    tile = first + index % band;
    pair = index / band;
  }
  item.column = (i64)(2 * pair + (int)rank) * kColumns;
  bool found = find_tile(a, tile, kRows, item);
  item.w_batch = a.tiles ? (int)(((const u8*)item.w - a.w_base) >> 8) : item.batch;
  return found;
}

/** From four blocks of a quad's two columns a lane to one block's eight columns: 16 bytes of a row. */
__device__ __forceinline__ void gather_quad(u32 (&v)[4]) {
  bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
  u32 a = __shfl_xor_sync(0xffffffffu, odd ? v[0] : v[1], 1);
  u32 b = __shfl_xor_sync(0xffffffffu, odd ? v[2] : v[3], 1);
  v[0] = odd ? a : v[0];
  v[1] = odd ? v[1] : a;
  v[2] = odd ? b : v[2];
  v[3] = odd ? v[3] : b;
  a = __shfl_xor_sync(0xffffffffu, high ? v[0] : v[2], 2);
  b = __shfl_xor_sync(0xffffffffu, high ? v[1] : v[3], 2);
  v[0] = high ? a : v[0];
  v[1] = high ? b : v[1];
  v[2] = high ? v[2] : a;
  v[3] = high ? v[3] : b;
}

/** The sums of a warpgroup's 64 rows to memory; a lane has `row` and the eighth row after it. */
__device__ __forceinline__ void store_sums(const GemmArgs& a, const GemmItem& item, i64 row,
                                           float (&sums)[kColumns / 2]) {
  int quad_lane = threadIdx.x & 3;
  i64 start = item.batch * a.out_batch + item.column;
  bool bf16 = a.out_dtype == kDtypeBf16;
  bool pieces = bf16 && ((u64)a.out | (u64)a.out_stride * 2 | (u64)a.out_batch * 2) % 16 == 0 &&
                a.outputs % 8 == 0;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    i64 at = (row + 8 * half) * a.out_stride + start;
    bool inside = row + 8 * half < item.row_end;
    if (pieces) {
#pragma unroll
      for (int j = 0; j < kColumns / 8; j += 4) {
        u32 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int from = 4 * (j + i) + 2 * half;
          v[i] = pack_bf16(sums[from], sums[from + 1]);
        }
        gather_quad(v);
        int column = 8 * (j + quad_lane);
        if (inside && item.column + column < a.outputs) {
          *(uint4*)((u16*)a.out + at + column) = make_uint4(v[0], v[1], v[2], v[3]);
        }
      }
      continue;
    }
#pragma unroll
    for (int i = 0; i < kColumns / 4; i++) {
      int column = 8 * (i >> 1) + 2 * quad_lane + (i & 1);
      float sum = sums[4 * (i >> 1) + 2 * half + (i & 1)];
      if (!inside || item.column + column >= a.outputs) continue;
      if (bf16) {
        store((u16*)a.out + at + column, sum);
      } else {
        store((float*)a.out + at + column, sum);
      }
    }
  }
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
sm90_gemm(const __grid_constant__ MappedGemmArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  u32 base = shared_address(shared);
  u32 full = base + kBarriers, empty = full + 8 * kStages;
  int t = threadIdx.x, lane = t & 31, group = __shfl_sync(0xffffffffu, t >> 7, 0);
  u32 rank = cluster_rank();
  int stages_total = (int)((a.inputs + kStageInputs - 1) / kStageInputs);
  int run_stages = (stages_total + kSplit - 1) / kSplit;
  int first_item = blockIdx.x >> 1, clusters = gridDim.x >> 1;
  if (t == 0) {
    for (int s = 0; s < kStages; s++) {
      barrier_init(full + 8 * s, 1);
      // Both blocks write into this one's buffers: the consumers of both give them back.
      barrier_init(empty + 8 * s, 16);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_meet();

  if (group == 2) {
    // ---- producer ----
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (t == 256) {
      prefetch_map(&a.x_map);
      prefetch_map(&a.w_map);
      int stage = 0;
      u32 parity = 1;
      GemmItem item;
      for (int index = first_item; find_item(a, index, rank, item); index += clusters) {
#pragma unroll 1
        for (int s = 0; s < stages_total; s++) {
          u32 to = base + stage * kStageBytes, barrier = full + 8 * stage;
          barrier_wait(empty + 8 * stage, parity);
          barrier_expect(barrier, kStageBytes + kScaleBytes);
          int input = s * kStageInputs;
          copy_box_to(to + rank * kBoxBytes, &a.x_map, barrier, input, item.batch,
                      (int)item.row + rank * kBoxRows, 3);
#pragma unroll
          for (int b = 0; b < kColumns / kBoxRows; b++) {
            copy_box(to + kRows * 128 + b * kBoxBytes, &a.w_map, barrier, input, item.w_batch,
                     (int)item.column + b * kBoxRows);
          }
#if kFp8
          copy_bulk(base + kStages * kStageBytes + stage * kScaleBytes,
                    a.x_scales + s * a.x_scale_stride + (item.row & ~3ll), kScaleBytes, barrier);
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
    int own_row = group * 64 + ((t >> 5) & 3) * 16 + (lane >> 2);
    int stage = 0;
    u32 parity = 0;
    auto give_back = [&](int s) {
      if (lane < 2) barrier_arrive_at(empty + 8 * s, lane);
    };
    auto next_stage = [&]() {
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    };
    GemmItem item;
    for (int index = first_item; find_item(a, index, rank, item); index += clusters) {
      if (item.row + group * 64 >= item.row_end) {
#pragma unroll 1
        for (int s = 0; s < stages_total; s++) {
          barrier_wait(full + 8 * stage, parity);
          give_back(stage);
          next_stage();
        }
        continue;
      }
#if kFp8
      const float* w_scale = item.w_scales;
      if (item.column < a.outputs) w_scale += (item.column / kScaleGroup) * stages_total;
      float next_scale = w_scale[0];
      int scale_at = (int)(item.row & 3) + own_row;
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
          wgmma_fence();
#if kFp8
          float part[kColumns / 2];
#pragma unroll
          for (int k = 0; k < 4; k++) multiply_e4m3(part, xd + 2 * k, wd + 2 * k, k > 0);
          wgmma_commit();
          const float* x_scale = (const float*)(shared + kStages * kStageBytes + stage * kScaleBytes);
          float scale0 = x_scale[scale_at] * next_scale, scale1 = x_scale[scale_at + 8] * next_scale;
          next_scale = w_scale[min(s + 1, stages_total - 1)];
          wgmma_wait<0>();
          give_back(stage);
          // Meanwhile the matrix unit has the other group's products.
#pragma unroll
          for (int i = 0; i < kColumns / 2; i += 4) {
            total[i] = fmaf(part[i], scale0, total[i]);
            total[i + 1] = fmaf(part[i + 1], scale0, total[i + 1]);
            total[i + 2] = fmaf(part[i + 2], scale1, total[i + 2]);
            total[i + 3] = fmaf(part[i + 3], scale1, total[i + 3]);
          }
#else
#pragma unroll
          for (int k = 0; k < 4; k++) multiply_bf16(total, xd + 2 * k, wd + 2 * k, k > 0 || s > begin);
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
      store_sums(a, item, item.row + own_row, runs);
#else
      store_sums(a, item, item.row + own_row, total);
#endif
    }
  }
  // Neither block may end while the other still writes into it.
  cluster_meet();
}
