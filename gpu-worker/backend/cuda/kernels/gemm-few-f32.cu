// The product of gemm-f32.cu for few rows: the same sums in the same order, so that a row's result
// is the same to the bit whichever of the two computes it. A decode step of a small model has one
// row a product and some twenty products a layer, so what counts is not the rate but how soon one
// is done: 8 outputs a block spread the weight over many SMs, and a block reads 256 inputs of all
// of them at once, where 16 at a time would wait for memory 16 times.

/** Rows of a tile: plainTileRows of gemm-plan.ts. */
#define kTileRows 64
#define kRows 32
#define kColumns 8
#define kDepth 256
#define kPitch (kDepth + 4)

extern "C" __global__ void __launch_bounds__(256) gemm_few_f32(const __grid_constant__ GemmArgs a) {
  __shared__ __align__(16) float xs[kRows][kPitch];
  __shared__ __align__(16) float ws[kColumns][kPitch];
  GemmTile tile;
  if (!find_tile(a, blockIdx.y, kTileRows, tile)) return;
  i64 column = (i64)blockIdx.x * kColumns;
  i64 z = blockIdx.z;
  int c = threadIdx.x % kColumns, r = threadIdx.x / kColumns, depth = threadIdx.x;
  bool scaled = tile.w_scales != nullptr;
  i64 scale_columns = (a.inputs + kScaleGroup - 1) / kScaleGroup;
  i64 output = column + c;

  for (i64 first = tile.row; first < tile.row_end; first += kRows) {
    int rows = (int)min((i64)kRows, tile.row_end - first);
    float total = 0.f, part = 0.f;
    for (i64 k = 0; k < a.inputs; k += kDepth) {
      // A thread takes one input of all outputs and rows.
      bool valid = k + depth < a.inputs;
      float w[kColumns];
#pragma unroll
      for (int j = 0; j < kColumns; j++) {
        i64 at = z * a.w_batch + (column + j) * a.inputs + k + depth;
        w[j] = valid && column + j < a.outputs ? load_weight(tile.w, at, (int)a.w_dtype) : 0.f;
      }
      const activation* x = (const activation*)a.x + first * a.x_stride + z * a.x_batch + k + depth;
      __syncthreads();
#pragma unroll 4
      for (int i = 0; i < rows; i++) xs[i][depth] = valid ? load(x + i * a.x_stride) : 0.f;
#pragma unroll
      for (int j = 0; j < kColumns; j++) ws[j][depth] = w[j];
      __syncthreads();
      if (r >= rows) continue;
      for (int d = 0; d < kDepth && k + d < a.inputs; d += kScaleGroup) {
#pragma unroll 8
        for (int e = d; e < d + kScaleGroup; e += 4) {
          float4 x4 = *(const float4*)&xs[r][e], w4 = *(const float4*)&ws[c][e];
          part = fmaf(x4.x, w4.x, part);
          part = fmaf(x4.y, w4.y, part);
          part = fmaf(x4.z, w4.z, part);
          part = fmaf(x4.w, w4.w, part);
        }
        if (!scaled) continue;
        i64 group = (k + d) / kScaleGroup, scale_row = min(output, a.outputs - 1) / kScaleGroup;
        total += part * tile.w_scales[scale_row * scale_columns + group];
        part = 0.f;
      }
    }
    if (r >= rows || output >= a.outputs) continue;
    float value = scaled ? total : part;
    i64 at = (first + r) * a.out_stride + z * a.out_batch + output;
    if (a.out_dtype == kDtypeBf16) store((u16*)a.out + at, value);
    else store((float*)a.out + at, value);
  }
}
