// A head of `dim` elements in the registers of a warp: lane l holds elements [l * kPerLane, (l + 1)
// * kPerLane). kPerLane is ceil(dim / 32); dim is a power of two where it is transformed.

#ifndef kPerLane
#define kPerLane 4
#endif

/** The rotation of columns [start, start + 2 * half) of a head. */
struct Rope {
  const float* cos;  // [positions, half]; null: nothing is rotated
  const float* sin;
  const int* positions;  // [rows]
  i64 start, half, half_split;
};

__device__ __forceinline__ void load_four(const u16* p, float* v) {
  uint2 pairs = *(const uint2*)p;
  v[0] = __uint_as_float(pairs.x << 16), v[1] = __uint_as_float(pairs.x & 0xffff0000u);
  v[2] = __uint_as_float(pairs.y << 16), v[3] = __uint_as_float(pairs.y & 0xffff0000u);
}
__device__ __forceinline__ void load_four(const float* p, float* v) {
  float4 four = *(const float4*)p;
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}
__device__ __forceinline__ void store_four(u16* p, const float* v) {
  *(uint2*)p = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}
__device__ __forceinline__ void store_four(float* p, const float* v) {
  *(float4*)p = make_float4(v[0], v[1], v[2], v[3]);
}

/** True if lanes hold whole fours at addresses that fit them. */
__device__ __forceinline__ bool by_fours(const activation* head, int dim) {
  return kPerLane % 4 == 0 && dim % 4 == 0 && ((u64)head & 15) == 0;
}

__device__ __forceinline__ void load_head(const activation* head, int dim, float (&v)[kPerLane]) {
  int first = (threadIdx.x & 31) * kPerLane;
  if (by_fours(head, dim)) {
#pragma unroll
    for (int i = 0; i + 3 < kPerLane; i += 4) {
      v[i] = v[i + 1] = v[i + 2] = v[i + 3] = 0.f;
      if (first + i < dim) load_four(head + first + i, v + i);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; i++) v[i] = first + i < dim ? load(head + first + i) : 0.f;
}

__device__ __forceinline__ void store_head(activation* head, int dim, const float (&v)[kPerLane]) {
  int first = (threadIdx.x & 31) * kPerLane;
  if (by_fours(head, dim)) {
#pragma unroll
    for (int i = 0; i + 3 < kPerLane; i += 4) {
      if (first + i < dim) store_four(head + first + i, v + i);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    if (first + i < dim) store(head + first + i, v[i]);
  }
}

/** LayerNorm with biased variance. */
__device__ __forceinline__ void norm_head(float (&v)[kPerLane], int dim, const float* weight,
                                          const float* bias, float epsilon) {
  int first = (threadIdx.x & 31) * kPerLane;
  float sum = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) sum += v[i];
  float mean = warp_sum(sum) / (float)dim;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    v[i] = first + i < dim ? v[i] - mean : 0.f;
    squares += v[i] * v[i];
  }
  float scale = 1.f / sqrtf(warp_sum(squares) / (float)dim + epsilon);
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    if (first + i < dim) v[i] = stored(weight[first + i] * (v[i] * scale) + bias[first + i]);
  }
}

/**
 * Partners lie in one lane, or at an equal distance of lanes, for the widths of published models;
 * for others they meet in `staged`, the warp's own [dim].
 */
__device__ __forceinline__ void rotate_head(float (&v)[kPerLane], int dim, const Rope& rope,
                                            i64 row, float* staged) {
  int lane = threadIdx.x & 31, first = lane * kPerLane;
  int half = (int)rope.half, start = (int)rope.start;
  const float* cosines = rope.cos + (i64)rope.positions[row] * half;
  const float* sines = rope.sin + (i64)rope.positions[row] * half;
  int distance = half / kPerLane;
  if (!rope.half_split && kPerLane % 2 == 0 && start % 2 == 0) {
#pragma unroll
    for (int i = 0; i + 1 < kPerLane; i += 2) {
      int c = first + i - start;
      if (c < 0 || c >= 2 * half) continue;
      float cos = cosines[c / 2], sin = sines[c / 2], u = v[i], w = v[i + 1];
      v[i] = stored(u * cos - w * sin);
      v[i + 1] = stored(u * sin + w * cos);
    }
    return;
  }
  if (rope.half_split && distance * kPerLane == half && (distance & (distance - 1)) == 0 &&
      start % (2 * half) == 0) {
    int c = first - start;
    bool inside = c >= 0 && c < 2 * half, second = c >= half;
    int pair = inside ? (second ? c - half : c) : 0;
#pragma unroll
    for (int i = 0; i < kPerLane; i++) {
      float other = __shfl_xor_sync(0xffffffffu, v[i], distance);
      float cos = cosines[pair + i], sin = sines[pair + i];
      float turned = second ? other * sin + v[i] * cos : v[i] * cos - other * sin;
      if (inside) v[i] = stored(turned);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    if (first + i < dim) staged[first + i] = v[i];
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    int c = first + i - start;
    if (c < 0 || c >= 2 * half) continue;
    int pair = rope.half_split ? c % half : c / 2;
    bool second = rope.half_split ? c >= half : c & 1;
    float u = staged[start + (rope.half_split ? pair : 2 * pair)];
    float w = staged[start + (rope.half_split ? pair + half : 2 * pair + 1)];
    float cos = cosines[pair], sin = sines[pair];
    v[i] = stored(second ? u * sin + w * cos : u * cos - w * sin);
  }
}

/** Walsh-Hadamard transform times `scale`: butterflies of distance 1, 2, 4, ... */
__device__ __forceinline__ void transform_head(float (&v)[kPerLane], int dim, float scale) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int distance = 1; distance < kPerLane; distance <<= 1) {
#pragma unroll
    for (int i = 0; i < kPerLane; i++) {
      if (i & distance) continue;
      float u = v[i], w = v[i + distance];
      v[i] = u + w;
      v[i + distance] = u - w;
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes <<= 1) {
    if (lanes * kPerLane >= dim) break;
    // A product with 1 or -1 is exact, so this is the sum or the difference.
    float sign = lane & lanes ? -1.f : 1.f;
#pragma unroll
    for (int i = 0; i < kPerLane; i++) {
      float other = __shfl_xor_sync(0xffffffffu, v[i], lanes);
      v[i] = fmaf(v[i], sign, other);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerLane; i++) v[i] = stored(v[i] * scale);
}
