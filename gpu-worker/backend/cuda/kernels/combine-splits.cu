// Adds up the splits that sm90-sparse-mla.cuh spreads a row's tokens over.

struct CombineArgs {
  u16* out;  // bf16 [rows, out_stride], heads * 512
  i64 out_stride;
  float* lse;  // [rows, lse_stride], or null
  i64 lse_stride;
  const float* partial;      // [rows, splits, heads, 512], each over its own sum
  const float* partial_lse;  // [rows, splits, heads]
  i64 heads, splits;
};

#define kThreads 128
/** Values that a thread has on their way. */
#define kBatch 8

/**
 * A block per head and row, a thread for four columns; as many splits as threads at most. Four
 * blocks an SM are plenty, and leave registers for a batch.
 */
extern "C" __global__ void __launch_bounds__(kThreads, 4)
combine_splits(const __grid_constant__ CombineArgs a) {
  __shared__ float lses[kThreads], weights[kThreads];
  i64 head = blockIdx.x, row = blockIdx.y, at = row * a.splits * a.heads + head;
  int splits = (int)a.splits, t = threadIdx.x;
  float lse = t < splits ? a.partial_lse[at + t * a.heads] : minus_infinity();
  lses[t] = lse;
  __syncthreads();
  float top = minus_infinity(), sum = 0.f;
  for (int s = 0; s < splits; s++) top = fmaxf(top, lses[s]);
  // A split without tokens has written nothing, and weighs nothing.
  weights[t] = lse == minus_infinity() ? 0.f : exp2_fast((lse - top) * 1.4426950408889634f);
  __syncthreads();
  float4 out = make_float4(0.f, 0.f, 0.f, 0.f);
  const float* from = a.partial + at * 512 + t * 4;
  for (int first = 0; first < splits; first += kBatch) {
    float4 v[kBatch];
    // All of a batch is on its way before a value is used, what was not written too.
#pragma unroll
    for (int i = 0; i < kBatch; i++) {
      v[i] = *(const float4*)(from + min(first + i, splits - 1) * a.heads * 512);
    }
#pragma unroll
    for (int i = 0; i < kBatch; i++) {
      float weight = weights[first + i];
      if (weight == 0.f) continue;
      sum += weight;
      out.x = fmaf(weight, v[i].x, out.x);
      out.y = fmaf(weight, v[i].y, out.y);
      out.z = fmaf(weight, v[i].z, out.z);
      out.w = fmaf(weight, v[i].w, out.w);
    }
  }
  float factor = sum > 0.f ? 1.f / sum : 0.f;
  uint2 packed = make_uint2(pack_bf16(out.x * factor, out.y * factor),
                            pack_bf16(out.z * factor, out.w * factor));
  *(uint2*)(a.out + row * a.out_stride + head * 512 + t * 4) = packed;
  if (a.lse && t == 0) {
    a.lse[row * a.lse_stride + head] = sum > 0.f ? top + logf(sum) : __int_as_float(0x7f800000);
  }
}
