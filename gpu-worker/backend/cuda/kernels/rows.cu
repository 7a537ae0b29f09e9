// Ops on one row at a time: embedding, norms, sums, rotations, activations, copies, quantisation.
// All are bound by memory; a block takes one row (or a warp one group), loads are coalesced.

struct EmbedArgs {
  activation* out;  // [rows, out_stride]
  i64 out_stride;
  const void* table;    // [tokens, columns] in its dtype
  const float* scales;  // [ceil(tokens / 128), scale_columns] of an e4m3 table, or null
  i64 dtype, columns, scale_columns;
  const int* tokens;  // [rows]
};

extern "C" __global__ void embed(const __grid_constant__ EmbedArgs a) {
  i64 row = blockIdx.x;
  i64 token = a.tokens[row];
  for (int c = threadIdx.x; c < a.columns; c += blockDim.x) {
    float value = load_weight(a.table, token * a.columns + c, (int)a.dtype);
    if (a.scales) value *= a.scales[(token / kScaleGroup) * a.scale_columns + c / kScaleGroup];
    store(a.out + row * a.out_stride + c, value);
  }
}

struct NormArgs {
  activation* out;
  i64 out_stride;
  const activation* x;
  i64 x_stride;
  activation* residual;  // null without; added to x, and replaced by the rounded sum
  i64 residual_stride;
  const float* weight;  // [columns]
  const float* bias;    // [columns]: LayerNorm; null: RMSNorm
  i64 columns;
  real epsilon;
};

extern "C" __global__ void norm_rows(const __grid_constant__ NormArgs a) {
  __shared__ float scratch[33];
  i64 row = blockIdx.x;
  int columns = (int)a.columns;
  const activation* x = a.x + row * a.x_stride;
  activation* residual = a.residual ? a.residual + row * a.residual_stride : nullptr;
  activation* out = a.out + row * a.out_stride;

  float mean = 0.f;
  if (a.bias) {
    float sum = 0.f;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) sum += load(x + c);
    mean = block_sum(sum, scratch) / (float)columns;
  }
  float squares = 0.f;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    float value = residual ? load(residual + c) + load(x + c) : load(x + c) - mean;
    squares += value * value;
  }
  float variance = block_sum(squares, scratch) / (float)columns;
  float scale = 1.f / sqrtf(variance + a.epsilon.v);

  // A thread writes only elements that it alone reads, so `out` may be `x`.
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    float value = residual ? load(residual + c) + load(x + c) : load(x + c) - mean;
    float result = a.weight[c] * (value * scale);
    if (a.bias) result += a.bias[c];
    store(out + c, result);
    if (residual) store(residual + c, value);
  }
}

struct PairArgs {
  activation* out;
  i64 out_stride;
  const activation* a;
  i64 a_stride;
  const activation* b;
  i64 b_stride;
  i64 columns;
};

extern "C" __global__ void add(const __grid_constant__ PairArgs p) {
  i64 row = blockIdx.y;
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= p.columns) return;
  float sum = load(p.a + row * p.a_stride + c) + load(p.b + row * p.b_stride + c);
  store(p.out + row * p.out_stride + c, sum);
}

/** out = silu(a) * b */
extern "C" __global__ void silu_multiply(const __grid_constant__ PairArgs p) {
  i64 row = blockIdx.y;
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= p.columns) return;
  float gate = load(p.a + row * p.a_stride + c);
  float silu = gate / (1.f + exp_reference(-gate));
  store(p.out + row * p.out_stride + c, silu * load(p.b + row * p.b_stride + c));
}

struct RotateArgs {
  activation* x;
  i64 x_stride, heads, head_stride, start, half, half_split;
  const float* cos;  // [positions, half]
  const float* sin;
  const int* positions;  // [rows]
};

extern "C" __global__ void rotate(const __grid_constant__ RotateArgs a) {
  i64 row = blockIdx.y;
  int half = (int)a.half;
  int pair = blockIdx.x * blockDim.x + threadIdx.x;
  if (pair >= a.heads * half) return;
  int head = pair / half, i = pair % half;
  i64 angle = (i64)a.positions[row] * half + i;
  float cos = a.cos[angle], sin = a.sin[angle];
  activation* x = a.x + row * a.x_stride + head * a.head_stride + a.start;
  int first = a.half_split ? i : 2 * i;
  int second = a.half_split ? i + half : 2 * i + 1;
  float u = load(x + first), v = load(x + second);
  store(x + first, u * cos - v * sin);
  store(x + second, u * sin + v * cos);
}

struct HadamardArgs {
  activation* x;
  i64 x_stride, heads, dim;
  real scale;  // dim^-0.5
};

/** One (head, row) per block of dim / 2 threads at least one; butterflies of distance 1, 2, 4, ... */
extern "C" __global__ void hadamard(const __grid_constant__ HadamardArgs a) {
  extern __shared__ float values[];
  activation* x = a.x + (i64)blockIdx.y * a.x_stride + blockIdx.x * a.dim;
  int dim = (int)a.dim;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) values[i] = load(x + i);
  __syncthreads();
  for (int distance = 1; distance < dim; distance <<= 1) {
    for (int i = threadIdx.x; i < dim / 2; i += blockDim.x) {
      int low = (i / distance) * 2 * distance + i % distance;
      float u = values[low], v = values[low + distance];
      values[low] = u + v;
      values[low + distance] = u - v;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < dim; i += blockDim.x) store(x + i, values[i] * a.scale.v);
}

struct CopyArgs {
  activation* out;
  i64 out_stride, out_part;
  const activation* x;
  i64 x_stride, x_part;
  i64 parts, part_columns;
  const int* row_indices;  // [rows] rows of x, or null for the same rows
};

extern "C" __global__ void copy_rows(const __grid_constant__ CopyArgs a) {
  i64 row = blockIdx.y;
  i64 from = a.row_indices ? a.row_indices[row] : row;
  i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.parts * a.part_columns) return;
  i64 part = i / a.part_columns, c = i % a.part_columns;
  a.out[row * a.out_stride + part * a.out_part + c] = a.x[from * a.x_stride + part * a.x_part + c];
}

struct QuantizeArgs {
  u8* out;  // [rows, out_stride], zero behind `columns`
  i64 out_stride;
  float* scales;  // [groups, scale_stride >= rows], groups = ceil(columns / 128)
  i64 groups, scale_stride;
  const activation* x;
  i64 x_stride, columns;
  const int* row_indices;  // [rows] rows of x, or null for the same rows
  i64 power_of_two;
};

/** A warp takes one group of 128, four values a lane. */
extern "C" __global__ void quantize(const __grid_constant__ QuantizeArgs a) {
  i64 row = blockIdx.y;
  i64 group = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (group >= a.groups) return;
  int lane = threadIdx.x & 31;
  i64 from = a.row_indices ? a.row_indices[row] : row;
  i64 first = group * kScaleGroup + lane * 4;
  float values[4];
  float amax = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    values[i] = first + i < a.columns ? load(a.x + from * a.x_stride + first + i) : 0.f;
    amax = fmaxf(amax, fabsf(values[i]));
  }
  float scale = group_scale(warp_max(amax), a.power_of_two);
  u32 codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) codes |= e4m3_code(values[i] / scale) << (8 * i);
  *(u32*)(a.out + row * a.out_stride + first) = codes;
  if (lane == 0) a.scales[group * a.scale_stride + row] = scale;
}

struct AbsorbArgs {
  const void* source;   // kv_b_proj [heads * (nope + value), latent]
  const float* scales;  // of an e4m3 source, or null
  i64 dtype, scale_columns, heads, nope, value, latent;
  void* to_latent;    // [heads, latent, nope]
  void* from_latent;  // [heads, value, latent]
  i64 as_bf16;        // else float32
};

extern "C" __global__ void absorb(const __grid_constant__ AbsorbArgs a) {
  i64 row = blockIdx.x;  // of the source
  i64 head = row / (a.nope + a.value), r = row % (a.nope + a.value);
  for (i64 c = threadIdx.x; c < a.latent; c += blockDim.x) {
    float value = load_weight(a.source, row * a.latent + c, (int)a.dtype);
    if (a.scales) value *= a.scales[(row / kScaleGroup) * a.scale_columns + c / kScaleGroup];
    bool nope = r < a.nope;
    void* out = nope ? a.to_latent : a.from_latent;
    i64 at = nope ? (head * a.latent + c) * a.nope + r
                  : (head * a.value + r - a.nope) * a.latent + c;
    if (a.as_bf16) store((u16*)out + at, value);
    else store((float*)out + at, value);
  }
}
