// out = x W^T on the tensor cores for few rows, at the rate at which memory gives the weights: the
// weights are the operand of 64 rows, kTileRows rows of x the narrow one. bf16 or e4m3 as in
// sm90-gemm.cu, and the same order of sums; its sums and ladder are in sm90-gemm.md too.
//
// A block has kOutputs outputs: a warpgroup for 64 of them each, and a producer warp that keeps
// kStages copies of 128 bytes of inputs in flight. kSplit blocks of a cluster share the outputs,
// each with its run of the inputs; every block then adds the runs, in order, of a part of the
// outputs.

// gemm-plan.ts gives these, as it does for sm90-gemm.cu.
#ifndef kFp8
#define kFp8 1
#define kTileRows 8
#define kSplit 1
#define kGroups 1
#define kStages 8
#define kSharedBytes 232448
#endif
#define kOutputs (64 * kGroups)
#define kThreads (128 * kGroups + 32)
#define kStageBytes ((kOutputs + kTileRows) * 128)
/** The scales of a stage lie as in sm90-gemm.cu. */
#define kRowScaleBytes (kTileRows * 4 + 16)
#define kScaleBytes (kFp8 ? kRowScaleBytes + 16 : 0)
#define kStageInputs (kFp8 ? 128 : 64)
#define kBarriers (kStages * (kStageBytes + kScaleBytes))
/** Floats from a row's sums to the next one's: a quad's stores meet in no bank. */
#define kSumStride (kOutputs + 4)
#define kOwnOutputs (kOutputs / kSplit)
static_assert(kBarriers + 16 * kStages <= kSharedBytes,
              "the plan gives a block too little shared memory");
static_assert(kTileRows * kSumStride * 4 <= kStages * kStageBytes,
              "the sums lie where the stages did");

extern "C" __global__ void
#if kSplit > 1
__cluster_dims__(kSplit, 1, 1)
#endif
__launch_bounds__(kThreads) sm90_gemm_few(const __grid_constant__ MappedGemmArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  GemmTile tile;
  if (!find_tile(a, blockIdx.y, kTileRows, tile)) return;
  u32 base = shared_address(shared);
  u32 full = base + kBarriers, empty = full + 8 * kStages;
  int t = threadIdx.x, lane = t & 31, group = t >> 7, batch = blockIdx.z;
  int rank = kSplit > 1 ? blockIdx.x % kSplit : 0;
  i64 column = (i64)(blockIdx.x / kSplit) * kOutputs;
  int stages_total = (int)((a.inputs + kStageInputs - 1) / kStageInputs);
  // A block's outputs have one block of scales: 128 outputs at most, and they begin at such a block
  // or at its middle.
  const float* w_scales = tile.w_scales + (column / kScaleGroup) * stages_total;
  int run = (stages_total + kSplit - 1) / kSplit;
  int first = min(rank * run, stages_total), last = min(first + run, stages_total);
  if (t == 0) {
    prefetch_map(&a.x_map);
    prefetch_map(&a.w_map);
    for (int s = 0; s < kStages; s++) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 4 * kGroups * kWarpArrivals);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  if (t >= 128 * kGroups) {
    // ---- producer ----
    if (lane == 0) {
      int w_batch = a.tiles ? (int)(((const u8*)tile.w - a.w_base) >> 8) : batch;
      for (int s = first; s < last; s++) {
        int stage = (s - first) % kStages;
        u32 to = base + stage * kStageBytes, barrier = full + 8 * stage;
        barrier_wait(empty + 8 * stage, ((s - first) / kStages & 1) ^ 1);
        barrier_expect(barrier, kStageBytes + kScaleBytes);
#pragma unroll
        for (int g = 0; g < kGroups; g++) {
          copy_box(to + g * 8192, &a.w_map, barrier, s * kStageInputs, w_batch,
                   (int)column + g * 64);
        }
        copy_box(to + kOutputs * 128, &a.x_map, barrier, s * kStageInputs, batch, (int)tile.row);
#if kFp8
        u32 scales = base + kStages * kStageBytes + stage * kScaleBytes;
        const float* x_scales = a.x_scales + s * a.x_scale_stride + (tile.row & ~3ll);
        copy_bulk(scales, x_scales, kRowScaleBytes, barrier);
        copy_bulk(scales + kRowScaleBytes, (const void*)((u64)(w_scales + s) & ~15ull), 16,
                  barrier);
#endif
      }
    }
  } else {
    // ---- consumers ----
    float total[kTileRows / 2];
#pragma unroll
    for (int i = 0; i < kTileRows / 2; i++) total[i] = 0.f;
#if kFp8
    int row_scale = (int)(tile.row & 3) + (lane & 3) * 2, w_scale = (int)((u64)w_scales >> 2);
#endif
    for (int s = first; s < last; s++) {
      int stage = (s - first) % kStages;
      u32 at = base + stage * kStageBytes;
      barrier_wait(full + 8 * stage, (s - first) / kStages & 1);
      u64 wd = k_major(at + group * 8192), xd = k_major(at + kOutputs * 128);
      wgmma_fence();
#if kFp8
      float part[kTileRows / 2];
#pragma unroll
      for (int k = 0; k < 4; k++) wgmma_e4m3(part, wd + 2 * k, xd + 2 * k, k > 0);
      wgmma_commit();
      const float* scales = (const float*)(shared + kStages * kStageBytes + stage * kScaleBytes);
      float scale = scales[kRowScaleBytes / 4 + ((w_scale + s) & 3)], row_scales[kTileRows / 4];
#pragma unroll
      for (int i = 0; i < kTileRows / 4; i++) {
        row_scales[i] = scales[row_scale + 8 * (i >> 1) + (i & 1)];
      }
      wgmma_wait<0>();
      loads_done();
#pragma unroll
      for (int i = 0; i < kTileRows / 2; i += 4) {
        float scale0 = row_scales[i / 2] * scale, scale1 = row_scales[i / 2 + 1] * scale;
        total[i] = fmaf(part[i], scale0, total[i]);
        total[i + 1] = fmaf(part[i + 1], scale1, total[i + 1]);
        total[i + 2] = fmaf(part[i + 2], scale0, total[i + 2]);
        total[i + 3] = fmaf(part[i + 3], scale1, total[i + 3]);
      }
      warp_arrive(empty + 8 * stage);
#else
#pragma unroll
      for (int k = 0; k < 4; k++) wgmma_bf16(total, wd + 2 * k, xd + 2 * k, k > 0 || s > first);
      wgmma_commit();
      wgmma_wait<0>();
      warp_arrive(empty + 8 * stage);
#endif
    }
    // No group may write sums over a stage that another still reads.
    threads_meet<1, 128 * kGroups>();
    int output = group * 64 + ((t >> 5) & 3) * 16 + (lane >> 2);
#pragma unroll
    for (int i = 0; i < kTileRows / 2; i++) {
      int row = 8 * (i >> 2) + 2 * (lane & 3) + (i & 1);
      ((float*)shared)[row * kSumStride + output + 8 * ((i >> 1) & 1)] = total[i];
    }
  }
  __syncwarp();
#if kSplit > 1
  cluster_sync();
#else
  threads_meet<0, kThreads>();
#endif

  // ---- the runs' sums, four outputs a thread ----
  bool bf16 = a.out_dtype == kDtypeBf16;
  bool pairs = bf16 && ((u64)a.out | (u64)a.out_stride * 2 | (u64)a.out_batch * 2) % 8 == 0 &&
               a.outputs % 4 == 0;
  const int per_row = kOwnOutputs / 4;
  for (int p = t; p < kTileRows * per_row; p += kThreads) {
    int row = p / per_row, own = rank * kOwnOutputs + p % per_row * 4;
    if (tile.row + row >= tile.row_end || column + own >= a.outputs) continue;
    u32 from = base + (row * kSumStride + own) * 4;
    float sums[4] = {};
#if kSplit > 1
#pragma unroll
    for (int r = 0; r < kSplit; r++) {
      float4 v = load_cluster(from, r);
      sums[0] += v.x;
      sums[1] += v.y;
      sums[2] += v.z;
      sums[3] += v.w;
    }
#else
    float4 v = *(const float4*)(shared + (from - base));
    sums[0] = v.x;
    sums[1] = v.y;
    sums[2] = v.z;
    sums[3] = v.w;
#endif
    i64 at = (tile.row + row) * a.out_stride + batch * a.out_batch + column + own;
    if (pairs) {
      *(uint2*)((u16*)a.out + at) =
          make_uint2(pack_bf16(sums[0], sums[1]), pack_bf16(sums[2], sums[3]));
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (column + own + i >= a.outputs) continue;
      if (bf16) {
        store((u16*)a.out + at + i, sums[i]);
      } else {
        store((float*)a.out + at + i, sums[i]);
      }
    }
  }
#if kSplit > 1
  // The others may still read this block's sums.
  cluster_meet();
#endif
}
