// Random numbers made where they are needed: weights and inputs of benchmarks, never zeros.

__device__ __forceinline__ u32 mixed(u64 x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  x ^= x >> 33;
  return (u32)x;
}

struct RandomArgs {
  void* out;
  i64 count, seed;
  real scale;
  i64 dtype;
};

/** Near normal: the sum of four uniform numbers, of deviation `scale`; bf16 values. */
extern "C" __global__ void random_values(const __grid_constant__ RandomArgs a) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < a.count;
       i += (i64)gridDim.x * blockDim.x) {
    u32 x = mixed(i * 4 + a.seed * 0x9e3779b97f4a7c15ull);
    u32 y = mixed(i * 4 + 1 + a.seed * 0x9e3779b97f4a7c15ull);
    float sum = (float)(x & 0xffff) + (float)(x >> 16) + (float)(y & 0xffff) + (float)(y >> 16);
    float value = (sum * (1.f / 65536.f) - 2.f) * 1.7320508f * a.scale.v;
    if (a.dtype == kDtypeF32) ((float*)a.out)[i] = bf16_value(bf16_bits(value));
    else if (a.dtype == kDtypeBf16) ((u16*)a.out)[i] = bf16_bits(value);
    else ((u8*)a.out)[i] = (u8)e4m3_code(value);
  }
}

struct RandomSelectionArgs {
  int* selected;  // [rows, width], ascending, one of each of `width` equal parts of the context
  i64 width;
  int* counts;  // [rows]
  const int* positions;
  i64 seed;
};

extern "C" __global__ void random_selection(const __grid_constant__ RandomSelectionArgs a) {
  i64 row = blockIdx.x, seen = a.positions[row] + 1, count = min(a.width, seen);
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) {
    i64 start = seen * i / count, end = seen * (i + 1) / count;
    u32 x = mixed((row * a.width + i) ^ (a.seed << 40));
    a.selected[row * a.width + i] = (int)(start + x % (end - start));
  }
  if (threadIdx.x == 0) a.counts[row] = (int)count;
}
