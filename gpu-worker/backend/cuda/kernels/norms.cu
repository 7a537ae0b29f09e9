// RMSNorm and LayerNorm of rows, with the residual added first and the result quantised after,
// where asked for. A block takes a row and holds it in registers: kPieces pieces of 8 columns a
// thread, so every operand is read once. The number of threads depends on the width alone, and so
// does the order of the sums. Sums and figures: rows.md.

#ifndef kPieces
#define kPieces 2
#endif

struct NormArgs {
  activation* out;
  i64 out_stride;
  const activation* x;
  i64 x_stride;
  activation* residual;  // null without; added to x, and replaced by the rounded sum
  i64 residual_stride;
  const float* weight;  // [columns]
  const float* bias;    // [columns]: LayerNorm; null: RMSNorm
  i64 columns;
  real epsilon;
  QuantizedRows quantized;  // of `out`
};

extern "C" __global__ void __launch_bounds__(512) norm_rows(const __grid_constant__ NormArgs a) {
  __shared__ float scratch[33];
  i64 row = blockIdx.x;
  int columns = (int)a.columns;
  const activation* x = a.x + row * a.x_stride;
  activation* residual = a.residual ? a.residual + row * a.residual_stride : nullptr;
  activation* out = a.out + row * a.out_stride;

  float values[kPieces][8];
#pragma unroll
  for (int p = 0; p < kPieces; p++) {
    load_eight(x, (threadIdx.x + p * blockDim.x) * 8, columns, values[p]);
  }
  if (residual) {
#pragma unroll
    for (int p = 0; p < kPieces; p++) {
      float before[8];
      load_eight(residual, (threadIdx.x + p * blockDim.x) * 8, columns, before);
#pragma unroll
      for (int i = 0; i < 8; i++) values[p][i] = before[i] + values[p][i];
    }
  }
  if (a.bias) {
    float sum = 0.f;
#pragma unroll
    for (int p = 0; p < kPieces; p++)
#pragma unroll
      for (int i = 0; i < 8; i++) sum += values[p][i];
    float mean = block_sum(sum, scratch) / (float)columns;
#pragma unroll
    for (int p = 0; p < kPieces; p++)
#pragma unroll
      for (int i = 0; i < 8; i++) {
        bool inside = (threadIdx.x + p * blockDim.x) * 8 + i < columns;
        values[p][i] = inside ? values[p][i] - mean : 0.f;
      }
  }
  float squares = 0.f;
#pragma unroll
  for (int p = 0; p < kPieces; p++)
#pragma unroll
    for (int i = 0; i < 8; i++) squares += values[p][i] * values[p][i];
  float variance = block_sum(squares, scratch) / (float)columns;
  float scale = 1.f / sqrtf(variance + a.epsilon.v);

  int groups = (columns + kScaleGroup - 1) / kScaleGroup;
#pragma unroll
  for (int p = 0; p < kPieces; p++) {
    int piece = threadIdx.x + p * blockDim.x, c = piece * 8;
    if (residual) store_eight(residual, c, columns, values[p]);
    float weight[8], result[8];
    load_eight(a.weight, c, columns, weight);
#pragma unroll
    for (int i = 0; i < 8; i++) result[i] = weight[i] * (values[p][i] * scale);
    if (a.bias) {
      float bias[8];
      load_eight(a.bias, c, columns, bias);
#pragma unroll
      for (int i = 0; i < 8; i++) result[i] += bias[i];
    }
    // A thread writes only columns that it alone read, so `out` may be `x`.
    store_eight(out, c, columns, result);
    if (a.quantized.codes) {
#pragma unroll
      for (int i = 0; i < 8; i++) result[i] = stored(result[i]);
      quantize_eight(a.quantized, row, piece, groups, result);
    }
  }
}
