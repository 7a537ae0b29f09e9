// Every kernel source begins with this: types, number formats and reductions. The sources include
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

// ---- number formats (docs/engine-spec.md#number-formats) ----------------------------------------

__device__ __forceinline__ float bf16_value(u32 bits) { return __uint_as_float(bits << 16); }

/** Two floats as bfloat16, the first in the low half. */
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/**
 * Through the form for two: of the form for one, ptxas 13.0 takes the low byte as a conversion of
 * the value to an integer.
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

// ---- activations ----

// The type that an op's rows are stored as: bfloat16 in bf16 numerics, else float32. A store
// rounds.
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
/** The value that a store of `x` would be read as. */
__device__ __forceinline__ float stored(float x) {
  return sizeof(activation) == 2 ? bf16_value(bf16_bits(x)) : x;
}

__device__ __forceinline__ void load_whole(const u16* p, float (&v)[8]) {
  uint4 four = *(const uint4*)p;
  u32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ void load_whole(const float* p, float (&v)[8]) {
  float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void store_whole(u16* p, const float (&v)[8]) {
  *(uint4*)p = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                          pack_bf16(v[6], v[7]));
}
__device__ __forceinline__ void store_whole(float* p, const float (&v)[8]) {
  ((float4*)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  ((float4*)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

/** Elements [c, c + 8) of a row of `columns`, zeros behind its end; c is a multiple of 8. */
template <typename T>
__device__ __forceinline__ void load_eight(const T* row, int c, int columns, float (&v)[8]) {
  if (c + 8 <= columns && ((u64)row & 15) == 0) return load_whole(row + c, v);
#pragma unroll
  for (int i = 0; i < 8; i++) v[i] = c + i < columns ? load(row + c + i) : 0.f;
}

/** Writes no column behind the end, where the row may be part of a wider one. */
template <typename T>
__device__ __forceinline__ void store_eight(T* row, int c, int columns, const float (&v)[8]) {
  if (c + 8 <= columns && ((u64)row & 15) == 0) return store_whole(row + c, v);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (c + i < columns) store(row + c + i, v[i]);
  }
}

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

// ---- reductions in a fixed order ----

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

/**
 * Sum over a block of up to 1024 threads, returned to all; `scratch` [33] floats of shared memory.
 */
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

// ---- rows as fp8 products read them (docs/engine-spec.md#number-formats) ------------------------

struct QuantizedRows {
  u8* codes;  // [rows, code_stride], zero behind the columns up to a multiple of 128; or null: none
  i64 code_stride;
  float* scales;  // one per row and 128 columns
  i64 scale_row, scale_group;  // floats from a row's scale to the next row's, to the next group's
  i64 power_of_two;
};

/** Four e4m3 codes, saturated; NaN becomes 0x7f. */
__device__ __forceinline__ u32 pack_e4m3(float a, float b, float c, float d) {
  u32 packed;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n}\n"
      : "=r"(packed)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return packed;
}

/**
 * Columns [8 * piece, 8 * piece + 8) of a row, by 16 lanes that hold a group of 128 together. All
 * lanes of the warp must come here; those whose piece is behind the last group write nothing.
 */
__device__ __forceinline__ void quantize_eight(const QuantizedRows& to, i64 row, int piece,
                                               int groups, const float (&v)[8]) {
  float amax = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++) amax = fmaxf(amax, fabsf(v[i]));
#pragma unroll
  for (int d = 8; d > 0; d >>= 1) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, d));
  int group = piece >> 4;
  if (group >= groups) return;
  float scale = group_scale(amax, to.power_of_two);
  uint2 codes;
  codes.x = pack_e4m3(v[0] / scale, v[1] / scale, v[2] / scale, v[3] / scale);
  codes.y = pack_e4m3(v[4] / scale, v[5] / scale, v[6] / scale, v[7] / scale);
  *(uint2*)(to.codes + row * to.code_stride + piece * 8) = codes;
  if ((piece & 15) == 0) to.scales[row * to.scale_row + group * to.scale_group] = scale;
}
