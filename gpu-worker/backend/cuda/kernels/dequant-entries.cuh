// Latent entries of 512 + 64 dimensions as bf16, by a warp.

/**
 * A lane's share: latent dimensions [16 lane, 16 lane + 16) and rope dimensions 2 lane and 2 lane +
 * 1.
 */
struct Bf16Entry {
  uint4 low, high;
  u32 rope;
};

/**
 * Dequantizes a 656-byte fp8 entry, aligned to 16 bytes. Products with scales that are powers of
 * two are exact.
 */
__device__ __forceinline__ Bf16Entry dequant_entry(const u8* entry) {
  int lane = threadIdx.x & 31;
  // A lane has 16 codes of one group.
  uint4 codes = *(const uint4*)(entry + lane * 16);
  float scale = *(const float*)(entry + 512 + (lane >> 3) * 4);
  auto pair = [&](u32 word, int at) {
    float x = e4m3_value((word >> at) & 0xff) * scale;
    float y = e4m3_value((word >> (at + 8)) & 0xff) * scale;
    return pack_bf16(x, y);
  };
  Bf16Entry wide;
  wide.low = make_uint4(pair(codes.x, 0), pair(codes.x, 16), pair(codes.y, 0), pair(codes.y, 16));
  wide.high = make_uint4(pair(codes.z, 0), pair(codes.z, 16), pair(codes.w, 0), pair(codes.w, 16));
  wide.rope = *(const u32*)(entry + 528 + lane * 4);
  return wide;
}
