// What every kernel source begins with: types, number formats and reductions. The sources include
// nothing, so that NVRTC needs no headers; the host puts this file before each of them.
//
// A kernel takes one struct of 8-byte fields: the host writes numbers and addresses alike into
// slots. Strides are in elements unless a name says otherwise. Products are not fused into sums
// (-fmad=false), as on the CPU; where a sum may be fused, it says fmaf.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

/** A float in an 8-byte slot. */
struct __align__(8) real {
  float v;
};

#define kScaleGroup 128
#define kDtypeF32 0
#define kDtypeBf16 1
#define kDtypeE4m3 2

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// ---- number formats (engine-spec 3.1) ------------------------------------------------------------

__device__ __forceinline__ float bf16_value(u32 bits) { return __uint_as_float(bits << 16); }

/** Two floats as bfloat16, the first in the low half. */
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/**
 * Through the form for two: of the form for one, ptxas 13.0 takes the low byte as a conversion of the
 * value to an integer.
 */
__device__ __forceinline__ u16 bf16_bits(float x) { return (u16)pack_bf16(x, 0.f); }

/** Nearest e4m3fn code, ties to even, saturated to 448; NaN becomes 0x7f. */
__device__ __forceinline__ u32 e4m3_code(float x) {
  if (x != x) return 0x7f;
  u32 sign = (__float_as_uint(x) >> 31) << 7;
  float magnitude = fminf(fabsf(x), 448.f);
  if (magnitude < 0.015625f) return sign | (__float_as_uint(magnitude + 16384.f) & 0xf);
  u32 bits = __float_as_uint(magnitude);
  return sign | (((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - 960);
}

__device__ __forceinline__ float e4m3_value(u32 code) {
  u32 fields = code & 0x7f;
  if (fields == 0x7f) return __int_as_float(0x7fc00000);
  // The exponent is 120 too small in a float's field; the product is exact, subnormals included.
  float magnitude = __uint_as_float(fields << 20) * 1.329227995784916e36f;
  return __uint_as_float(__float_as_uint(magnitude) | ((code & 0x80) << 24));
}

// ---- activations ---------------------------------------------------------------------------------

// What an op's rows are stored as: bfloat16 in bf16 numerics, else float32. A store rounds.
#ifndef kBf16
#define kBf16 0
#endif
#if kBf16
typedef u16 activation;
#else
typedef float activation;
#endif

__device__ __forceinline__ float load(const float* p) { return *p; }
__device__ __forceinline__ float load(const u16* p) { return bf16_value(*p); }
__device__ __forceinline__ void store(float* p, float x) { *p = x; }
__device__ __forceinline__ void store(u16* p, float x) { *p = bf16_bits(x); }

/** The scale of a group whose largest magnitude is `amax`. */
__device__ __forceinline__ float group_scale(float amax, bool power_of_two) {
  float quotient = fmaxf(amax, 1e-4f) / 448.f;
  if (!power_of_two) return quotient;
  return __uint_as_float((__float_as_uint(quotient) + 0x7fffff) & 0x7f800000);
}

__device__ __forceinline__ float load_weight(const void* weights, i64 index, int dtype) {
  if (dtype == kDtypeF32) return ((const float*)weights)[index];
  if (dtype == kDtypeBf16) return bf16_value(((const u16*)weights)[index]);
  return e4m3_value(((const u8*)weights)[index]);
}

/** e^x exactly as the cpu backend computes it (kernels/numbers.ts). */
__device__ __forceinline__ float exp_reference(float x) {
  float bounded = fminf(fmaxf(x, -87.33654f), 89.f);
  float n = rintf(bounded * 1.44269504f);
  float r = bounded - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float series = 1.98412698e-4f;
  series = 1.38888889e-3f + series * r;
  series = 8.33333333e-3f + series * r;
  series = 4.16666667e-2f + series * r;
  series = 0.166666667f + series * r;
  series = 0.5f + series * r;
  series = r + series * (r * r);
  float value = (1.f + series) * __int_as_float(((int)n + 127) << 23);
  return x < -87.33654f ? 0.f : value;
}

// ---- reductions in a fixed order -------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

/** Sum over a block of up to 1024 threads, returned to all; `scratch` [33] floats of shared memory. */
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  int warps = blockDim.x >> 5;
  if (threadIdx.x < 32) {
    float y = threadIdx.x < warps ? scratch[threadIdx.x] : 0.f;
    y = warp_sum(y);
    if (threadIdx.x == 0) scratch[32] = y;
  }
  __syncthreads();
  return scratch[32];
}
