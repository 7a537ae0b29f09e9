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

/** A block of 128 threads per head and row, a thread for four columns. */
extern "C" __global__ void __launch_bounds__(128) combine_splits(const __grid_constant__ CombineArgs a) {
  i64 head = blockIdx.x, row = blockIdx.y, at = row * a.splits * a.heads + head;
  int splits = (int)a.splits;
  float top = minus_infinity(), sum = 0.f;
  for (int s = 0; s < splits; s++) top = fmaxf(top, a.partial_lse[at + s * a.heads]);
  float4 out = make_float4(0.f, 0.f, 0.f, 0.f);
  if (top > minus_infinity()) {
    for (int s = 0; s < splits; s++) {
      float weight = exp2_fast((a.partial_lse[at + s * a.heads] - top) * 1.4426950408889634f);
      // A split without tokens has written nothing.
      if (weight == 0.f) continue;
      sum += weight;
      float4 v = *(const float4*)(a.partial + (at + s * a.heads) * 512 + threadIdx.x * 4);
      out.x = fmaf(weight, v.x, out.x);
      out.y = fmaf(weight, v.y, out.y);
      out.z = fmaf(weight, v.z, out.z);
      out.w = fmaf(weight, v.w, out.w);
    }
  }
  float factor = sum > 0.f ? 1.f / sum : 0.f;
  uint2 packed = make_uint2(pack_bf16(out.x * factor, out.y * factor),
                            pack_bf16(out.z * factor, out.w * factor));
  *(uint2*)(a.out + row * a.out_stride + head * 512 + threadIdx.x * 4) = packed;
  if (a.lse && threadIdx.x == 0) {
    a.lse[row * a.lse_stride + head] = sum > 0.f ? top + logf(sum) : __int_as_float(0x7f800000);
  }
}
