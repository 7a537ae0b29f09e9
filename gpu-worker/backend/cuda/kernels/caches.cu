// Writing the paged caches (engine-spec 7).
//
// Latent entries, one slot after the other. f32: [latent | rope], padded to a multiple of 4 floats.
// bf16: the same in 2 bytes each. fp8: latent in e4m3, a float scale per 128 of it, the rope part in
// bf16: 656 bytes for 512 + 64. Index keys. f32: [slot][dim]. fp8: per page of 64 slots first
// [64][dim] e4m3, then 64 float scales.

struct WriteLatentArgs {
  u8* cache;
  i64 entry_bytes, format, latent, rope;
  const activation* x;  // [rows, x_stride]
  i64 x_stride;
  const int* slots;  // [rows]
};

extern "C" __global__ void write_latent(const __grid_constant__ WriteLatentArgs a) {
  i64 row = blockIdx.x;
  const activation* x = a.x + row * a.x_stride;
  u8* entry = a.cache + (i64)a.slots[row] * a.entry_bytes;
  int latent = (int)a.latent, width = latent + (int)a.rope;
  if (a.format == kDtypeF32) {
    // The padding takes part in sums, so it must be zero.
    for (int c = threadIdx.x; c < a.entry_bytes / 4; c += blockDim.x) {
      ((float*)entry)[c] = c < width ? load(x + c) : 0.f;
    }
    return;
  }
  if (a.format == kDtypeBf16) {
    for (int c = threadIdx.x; c < width; c += blockDim.x) store((u16*)entry + c, load(x + c));
    return;
  }
  int groups = (latent + kScaleGroup - 1) / kScaleGroup;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  // An odd latent width leaves the scales and the rope part unaligned: they are written by bytes.
  u8* scales = entry + latent;
  for (int g = warp; g < groups; g += warps) {
    float amax = 0.f;
    int end = min((g + 1) * kScaleGroup, latent);
    for (int c = g * kScaleGroup + lane; c < end; c += 32) amax = fmaxf(amax, fabsf(load(x + c)));
    float scale = group_scale(warp_max(amax), true);
    for (int c = g * kScaleGroup + lane; c < end; c += 32) entry[c] = (u8)e4m3_code(load(x + c) / scale);
    if (lane < 4) scales[4 * g + lane] = (u8)(__float_as_uint(scale) >> (8 * lane));
  }
  u8* rope = scales + 4 * groups;
  for (int c = threadIdx.x; c < a.rope; c += blockDim.x) {
    u32 bits = bf16_bits(load(x + latent + c));
    rope[2 * c] = (u8)bits;
    rope[2 * c + 1] = (u8)(bits >> 8);
  }
}

struct WriteKeysArgs {
  u8* cache;
  i64 page_bytes, format, dim;
  const activation* x;
  i64 x_stride;
  const int* slots;
};

/** One warp per row. */
extern "C" __global__ void write_index_keys(const __grid_constant__ WriteKeysArgs a) {
  i64 row = blockIdx.x;
  const activation* x = a.x + row * a.x_stride;
  int slot = a.slots[row], dim = (int)a.dim, lane = threadIdx.x;
  u8* page = a.cache + (i64)(slot >> 6) * a.page_bytes;
  if (a.format == kDtypeF32) {
    float* key = (float*)page + (slot & 63) * dim;
    for (int c = lane; c < dim; c += 32) key[c] = load(x + c);
    return;
  }
  float amax = 0.f;
  for (int c = lane; c < dim; c += 32) amax = fmaxf(amax, fabsf(load(x + c)));
  float scale = group_scale(warp_max(amax), true);
  u8* key = page + (slot & 63) * dim;
  for (int c = lane; c < dim; c += 32) key[c] = (u8)e4m3_code(load(x + c) / scale);
  if (lane == 0) ((float*)(page + dim * 64))[slot & 63] = scale;
}
