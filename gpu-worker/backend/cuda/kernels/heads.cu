// Index queries: each head rotated, then transformed. A warp takes a head.

struct HeadsArgs {
  activation* x;  // [rows, x_stride], heads * dim
  i64 x_stride, heads, dim;
  Rope rope;
  real scale;  // of the transform, dim^-0.5
};

/** Shared: [warps][dim] floats. */
extern "C" __global__ void transform_heads(const __grid_constant__ HeadsArgs a) {
  extern __shared__ float staged[];
  i64 row = blockIdx.x;
  int warp = threadIdx.x >> 5, head = blockIdx.y * (blockDim.x >> 5) + warp, dim = (int)a.dim;
  if (head >= a.heads) return;
  activation* x = a.x + row * a.x_stride + (i64)head * dim;
  float v[kPerLane];
  load_head(x, dim, v);
  if (a.rope.cos) rotate_head(v, dim, a.rope, row, staged + warp * dim);
  transform_head(v, dim, a.scale.v);
  store_head(x, dim, v);
}
