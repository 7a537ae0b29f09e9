// out = x W^T on the matrix unit: bf16 (kFp8 = 0), or e4m3 with a scale per 128 inputs of x and per
// 128 x 128 block of W, each 128 inputs promoted to float32 sums (engine-spec 3.2).
//
// A stage holds 128 bytes of inputs for kRows rows of x and kColumns outputs of W; copies run
// kStages - 1 ahead. Every output sums its inputs in one order whatever the tile, so a row's result
// does not depend on the rows beside it.
//
// Sums for V3.2's 4096 x 7168 x 16384 in fp8: 962 GFLOP, 0.77 ms at 1,255 TFLOP/s; 184 MB of
// operands, 0.04 ms at 4.25 TB/s: bound by the matrix unit. For one row: 117 MB of weights, 28 us.
//
// Measured on one H200, quantisation of x included: that shape 1.96 ms, 491 TFLOP/s, and 79 us for
// one row; bf16 2.56 ms, 376 TFLOP/s. All threads copy, wait, multiply and scale in turn, so the
// matrix unit idles while sums are scaled; a producer warp and two tiles in turn come next.

#ifndef kFp8
#define kFp8 1
#define kRows 128
#define kColumns 128
#endif
#define kStages 4
#define kThreads (kRows * 2)
#define kStageBytes ((kRows + kColumns) * 128)
#define kElementBytes (kFp8 ? 1 : 2)

extern "C" __global__ void __launch_bounds__(kThreads, 1) sm90_gemm(const __grid_constant__ GemmArgs a) {
  extern __shared__ __align__(1024) u8 shared[];
  GemmTile tile;
  if (!find_tile(a, kRows, tile)) return;
  i64 column = (i64)blockIdx.x * kColumns, z = blockIdx.z;
  i64 inputs_bytes = a.inputs * kElementBytes;
  int stages_total = (int)((inputs_bytes + 127) / 128);
  u32 base = shared_address(shared);
  int t = threadIdx.x, lane = t & 31, warp = (t >> 5) & 3, group = t >> 7;

  // Copies: a thread has one 16-byte piece of every kThreads / 8-th row.
  const u8* x = (const u8*)a.x + z * a.x_batch * kElementBytes;
  const u8* w = (const u8*)tile.w + z * a.w_batch * kElementBytes;
  int piece = t & 7, first = t >> 3;
  auto load_stage = [&](int stage) {
    u32 to = base + (stage % kStages) * kStageBytes;
    i64 at = (i64)stage * 128 + piece * 16;
    bool inside = at < inputs_bytes;
#pragma unroll
    for (int r = 0; r < kRows; r += kThreads / 8) {
      i64 row = tile.row + first + r;
      bool valid = inside && row < tile.row_end;
      const u8* from = valid ? x + row * a.x_stride * kElementBytes + at : x;
      copy_async(to + swizzled(first + r, piece), from, valid ? 16 : 0);
    }
#pragma unroll
    for (int r = 0; r < kColumns; r += kThreads / 8) {
      i64 output = column + first + r;
      bool valid = inside && output < a.outputs;
      const u8* from = valid ? w + output * inputs_bytes + at : w;
      copy_async(to + kRows * 128 + swizzled(first + r, piece), from, valid ? 16 : 0);
    }
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) {
    if (s < stages_total) load_stage(s);
    copy_commit();
  }

  i64 row0 = tile.row + group * 64 + warp * 16 + (lane >> 2), row1 = row0 + 8;
  float total[kColumns / 2] = {};
#if kFp8
  float part[kColumns / 2];
  const float* x_scale0 = a.x_scales + min(row0, tile.row_end - 1) * a.x_scale_stride;
  const float* x_scale1 = a.x_scales + min(row1, tile.row_end - 1) * a.x_scale_stride;
  const float* w_scale = tile.w_scales + (column / kScaleGroup) * stages_total;
#endif
  for (int stage = 0; stage < stages_total; stage++) {
    copy_wait<kStages - 2>();
    fence_async();
    __syncthreads();
    if (stage + kStages - 1 < stages_total) load_stage(stage + kStages - 1);
    copy_commit();
    u32 at = base + (stage % kStages) * kStageBytes;
    u64 xd = k_major(at + group * 64 * 128), wd = k_major(at + kRows * 128);
#if kFp8
    float scale = w_scale[stage], scale0 = x_scale0[stage] * scale, scale1 = x_scale1[stage] * scale;
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_e4m3(part, xd + 2 * k, wd + 2 * k, k > 0);
    wgmma_commit();
    wgmma_wait<0>();
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
    for (int k = 0; k < 4; k++) wgmma_bf16(total, xd + 2 * k, wd + 2 * k, 1);
    wgmma_commit();
    wgmma_wait<0>();
#endif
  }

#pragma unroll
  for (int i = 0; i < kColumns / 2; i += 2) {
    i64 row = i & 2 ? row1 : row0;
    i64 output = column + (i >> 2) * 8 + (lane & 3) * 2;
    if (row >= tile.row_end) continue;
    i64 at = row * a.out_stride + z * a.out_batch + output;
    bool both = output + 1 < a.outputs;
    if (a.out_dtype == kDtypeF32) {
      float* out = (float*)a.out + at;
      if (output < a.outputs) out[0] = total[i];
      if (both) out[1] = total[i + 1];
    } else {
      u16* out = (u16*)a.out + at;
      if (both && ((u64)out & 3) == 0) {
        *(u32*)out = pack_bf16(total[i], total[i + 1]);
      } else {
        if (output < a.outputs) store(out, total[i]);
        if (both) store(out + 1, total[i + 1]);
      }
    }
  }
}
