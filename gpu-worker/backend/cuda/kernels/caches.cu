// Writing the paged caches (docs/engine-spec.md#caches), entries as they come or normed, rotated
// and transformed on the way, with the roundings that the ops have one after another.
//
// Latent entries, one slot after the other. f32: [latent | rope], padded to a multiple of 4 floats.
// bf16: the same in 2 bytes each. fp8: latent in e4m3, a float scale per 128 of it, the rope part
// in bf16: 656 bytes for 512 + 64. Index keys. f32: [slot][dim]. fp8: per page of 64 slots first
// [64][dim] e4m3, then 64 float scales.

struct WriteLatentArgs {
  u8* cache;
  i64 entry_bytes, format, latent, rope;
  const activation* x;  // [rows, x_stride]
  i64 x_stride;
  const int* slots;          // [rows]
  // [latent]: norm the latent and rotate the rope part; null: as they come
  const float* norm_weight;
  real epsilon;
  const float* cos;  // [positions, rope / 2]
  const float* sin;
  const int* positions;  // [rows]
};

/** A block of 128 takes a row. Shared: [latent + rope] floats. */
extern "C" __global__ void __launch_bounds__(128)
write_latent(const __grid_constant__ WriteLatentArgs a) {
  extern __shared__ float x[];
  __shared__ float scratch[33];
  i64 row = blockIdx.x;
  int latent = (int)a.latent, width = latent + (int)a.rope, t = threadIdx.x;
  float squares = 0.f;
  for (int c = t * 8; c < width; c += 1024) {
    float v[8];
    load_eight(a.x + row * a.x_stride, c, width, v);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (c + i < width) x[c + i] = v[i];
      if (c + i < latent) squares += v[i] * v[i];
    }
  }
  if (a.norm_weight) {
    float scale = 1.f / sqrtf(block_sum(squares, scratch) / (float)latent + a.epsilon.v);
    for (int c = t; c < latent; c += 128) x[c] = stored(a.norm_weight[c] * (x[c] * scale));
    for (int pair = t; pair < a.rope / 2; pair += 128) {
      i64 angle = (i64)a.positions[row] * (a.rope / 2) + pair;
      float cos = a.cos[angle], sin = a.sin[angle];
      float u = x[latent + 2 * pair], v = x[latent + 2 * pair + 1];
      x[latent + 2 * pair] = stored(u * cos - v * sin);
      x[latent + 2 * pair + 1] = stored(u * sin + v * cos);
    }
  }
  __syncthreads();

  u8* entry = a.cache + (i64)a.slots[row] * a.entry_bytes;
  if (a.format == kDtypeF32) {
    // The padding takes part in sums, so it must be zero.
    for (int c = t; c < a.entry_bytes / 4; c += 128) ((float*)entry)[c] = c < width ? x[c] : 0.f;
    return;
  }
  if (a.format == kDtypeBf16) {
    for (int c = t; c < width; c += 128) store((u16*)entry + c, x[c]);
    return;
  }
  int groups = (latent + kScaleGroup - 1) / kScaleGroup, lane = t & 31;
  // An odd latent width leaves codes, scales and rope part unaligned: they are written by bytes.
  u8* scales = entry + latent;
  u8* rope = scales + 4 * groups;
  bool aligned = ((u64)entry & 3) == 0 && (latent & 3) == 0;
  for (int group = t >> 5; group < groups; group += 4) {
    int c = group * kScaleGroup + lane * 4;
    float v[4], amax = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      v[i] = c + i < latent ? x[c + i] : 0.f;
      amax = fmaxf(amax, fabsf(v[i]));
    }
    float scale = group_scale(warp_max(amax), true);
    u32 codes = pack_e4m3(v[0] / scale, v[1] / scale, v[2] / scale, v[3] / scale);
    if (aligned && c < latent) *(u32*)(entry + c) = codes;
    for (int i = 0; i < 4 && !aligned; i++) {
      if (c + i < latent) entry[c + i] = (u8)(codes >> (8 * i));
    }
    if (lane < 4) scales[4 * group + lane] = (u8)(__float_as_uint(scale) >> (8 * lane));
  }
  for (int c = t; c < a.rope; c += 128) {
    u32 bits = pack_bf16(x[latent + c], 0.f);
    if (aligned) {
      *(u16*)(rope + 2 * c) = (u16)bits;
    } else {
      rope[2 * c] = (u8)bits;
      rope[2 * c + 1] = (u8)(bits >> 8);
    }
  }
}

struct WriteKeysArgs {
  u8* cache;
  i64 page_bytes, format, dim;
  const activation* x;
  i64 x_stride;
  const int* slots;
  i64 rows;
  const float* norm_weight;  // [dim]: LayerNorm with `norm_bias` first; null: without
  const float* norm_bias;
  real epsilon;
  Rope rope;
  i64 transformed;
  real scale;  // of the transform, dim^-0.5
};

/** A warp takes a row. Shared: [warps][dim] floats. */
extern "C" __global__ void write_index_keys(const __grid_constant__ WriteKeysArgs a) {
  extern __shared__ float staged[];
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, dim = (int)a.dim, first = lane * kPerLane;
  i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + warp;
  if (row >= a.rows) return;
  float v[kPerLane];
  load_head(a.x + row * a.x_stride, dim, v);
  if (a.norm_weight) norm_head(v, dim, a.norm_weight, a.norm_bias, a.epsilon.v);
  if (a.rope.cos) rotate_head(v, dim, a.rope, row, staged + warp * dim);
  if (a.transformed) transform_head(v, dim, a.scale.v);

  int slot = a.slots[row];
  u8* page = a.cache + (i64)(slot >> 6) * a.page_bytes;
  if (a.format == kDtypeF32) {
    float* key = (float*)page + (slot & 63) * dim;
#pragma unroll
    for (int i = 0; i < kPerLane; i++) {
      if (first + i < dim) key[first + i] = v[i];
    }
    return;
  }
  float amax = 0.f;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) amax = fmaxf(amax, fabsf(v[i]));
  float scale = group_scale(warp_max(amax), true);
  u8* key = page + (slot & 63) * dim;
#pragma unroll
  for (int i = 0; i < kPerLane; i++) {
    if (first + i < dim) key[first + i] = (u8)e4m3_code(v[i] / scale);
  }
  if (lane == 0) ((float*)(page + dim * 64))[slot & 63] = scale;
}
