// out = x W^T in float32, for every weight dtype, with or without scales: the plain product, and
// the one that float32 numerics use. 64 x 64 outputs a block, 4 x 4 a thread; each output sums in
// ascending order of the inputs, so a row's result does not depend on the rows beside it. Quantised
// inputs come as e4m3 codes with their scales (docs/engine-spec.md#linear-layers).

#define kRows 64
#define kColumns 64
#define kDepth 16

extern "C" __global__ void __launch_bounds__(256) gemm_f32(const __grid_constant__ GemmArgs a) {
  __shared__ float xs[kDepth][kRows + 4];
  __shared__ float ws[kDepth][kColumns + 4];
  GemmTile tile;
  if (!find_tile(a, blockIdx.y, kRows, tile)) return;
  i64 column = (i64)blockIdx.x * kColumns;
  i64 z = blockIdx.z;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  bool codes = a.x_scales != nullptr;
  bool scaled = tile.w_scales != nullptr;
  i64 scale_columns = (a.inputs + kScaleGroup - 1) / kScaleGroup;

  float total[4][4] = {}, part[4][4] = {};
  for (i64 k = 0; k < a.inputs; k += kDepth) {
    __syncthreads();
    for (int i = threadIdx.x; i < kRows * kDepth; i += 256) {
      int r = i / kDepth, d = i % kDepth;
      i64 row = tile.row + r;
      float value = 0.f;
      if (row < tile.row_end && k + d < a.inputs) {
        i64 at = row * a.x_stride + z * a.x_batch + k + d;
        value = codes ? e4m3_value(((const u8*)a.x)[at]) : load((const activation*)a.x + at);
      }
      xs[d][r] = value;
      i64 output = column + r;
      ws[d][r] = output < a.outputs && k + d < a.inputs
                     ? load_weight(tile.w, z * a.w_batch + output * a.inputs + k + d,
                                   (int)a.w_dtype)
                     : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; d++) {
      float x[4], w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = xs[d][ty * 4 + i];
#pragma unroll
      for (int j = 0; j < 4; j++) w[j] = ws[d][tx * 4 + j];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) part[i][j] = fmaf(x[i], w[j], part[i][j]);
    }
    bool group_ends = (k + kDepth) % kScaleGroup == 0 || k + kDepth >= a.inputs;
    if (!scaled || !group_ends) continue;
    i64 group = k / kScaleGroup;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      i64 row = min(tile.row + ty * 4 + i, tile.row_end - 1);
      float x_scale = codes ? a.x_scales[group * a.x_scale_stride + row] : 1.f;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        i64 output = min(column + tx * 4 + j, a.outputs - 1);
        float factor = x_scale * tile.w_scales[(output / kScaleGroup) * scale_columns + group];
        total[i][j] += part[i][j] * factor;
        part[i][j] = 0.f;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      i64 row = tile.row + ty * 4 + i, output = column + tx * 4 + j;
      if (row >= tile.row_end || output >= a.outputs) continue;
      float value = scaled ? total[i][j] : part[i][j];
      i64 at = row * a.out_stride + z * a.out_batch + output;
      if (a.out_dtype == kDtypeBf16) store((u16*)a.out + at, value);
      else store((float*)a.out + at, value);
    }
}
