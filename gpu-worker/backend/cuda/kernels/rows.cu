// Ops on one row at a time: embedding, sums, rotations, activations, copies, quantisation. All are
// bound by memory: a thread takes 8 columns, 16 bytes of bfloat16. Sums and figures: rows.md.

struct EmbedArgs {
  activation* out;  // [rows, out_stride]
  i64 out_stride;
  const void* table;    // [tokens, columns] in its dtype
  const float* scales;  // [ceil(tokens / 128), scale_columns] of an e4m3 table, or null
  i64 dtype, columns, scale_columns;
  const int* tokens;  // [rows]
};

extern "C" __global__ void embed(const __grid_constant__ EmbedArgs a) {
  i64 row = blockIdx.x, token = a.tokens[row], at = token * a.columns;
  int columns = (int)a.columns, c = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (c >= columns) return;
  float v[8];
  if (a.dtype == kDtypeF32) load_eight((const float*)a.table + at, c, columns, v);
  else if (a.dtype == kDtypeBf16) load_eight((const u16*)a.table + at, c, columns, v);
  else {
    const u8* codes = (const u8*)a.table + at;
    float scale =
        a.scales ? a.scales[(token / kScaleGroup) * a.scale_columns + c / kScaleGroup] : 1.f;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = c + i < columns ? e4m3_value(codes[c + i]) * scale : 0.f;
  }
  store_eight(a.out + row * a.out_stride, c, columns, v);
}

struct PairArgs {
  activation* out;  // null: quantised alone
  i64 out_stride;
  const activation* a;
  i64 a_stride;
  const activation* b;
  i64 b_stride;
  i64 columns;
  QuantizedRows quantized;  // of `out`
};

extern "C" __global__ void add(const __grid_constant__ PairArgs p) {
  i64 row = blockIdx.x;
  int columns = (int)p.columns, c = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (c >= columns) return;
  float a[8], b[8];
  load_eight(p.a + row * p.a_stride, c, columns, a);
  load_eight(p.b + row * p.b_stride, c, columns, b);
#pragma unroll
  for (int i = 0; i < 8; i++) a[i] += b[i];
  store_eight(p.out + row * p.out_stride, c, columns, a);
}

/** out = silu(a) * b; whole warps stay to the end, as quantising needs them. */
extern "C" __global__ void silu_multiply(const __grid_constant__ PairArgs p) {
  i64 row = blockIdx.x;
  int columns = (int)p.columns, piece = blockIdx.y * blockDim.x + threadIdx.x, c = piece * 8;
  float a[8], b[8];
  load_eight(p.a + row * p.a_stride, c, columns, a);
  load_eight(p.b + row * p.b_stride, c, columns, b);
#pragma unroll
  for (int i = 0; i < 8; i++) a[i] = (a[i] / (1.f + exp_reference(-a[i]))) * b[i];
  if (p.out) store_eight(p.out + row * p.out_stride, c, columns, a);
  if (p.quantized.codes) {
#pragma unroll
    for (int i = 0; i < 8; i++) a[i] = stored(a[i]);
    quantize_eight(p.quantized, row, piece, (columns + kScaleGroup - 1) / kScaleGroup, a);
  }
}

struct RotateArgs {
  activation* x;
  i64 x_stride, heads, head_stride, start, half, half_split;
  const float* cos;  // [positions, half]
  const float* sin;
  const int* positions;  // [rows]
};

/**
 * A thread takes 8 columns that lie together: four pairs; in halves, 8 columns and their partners.
 */
extern "C" __global__ void rotate(const __grid_constant__ RotateArgs a) {
  i64 row = blockIdx.x;
  int half = (int)a.half, width = a.half_split ? half : 2 * half, pieces = (width + 7) / 8;
  int index = blockIdx.y * blockDim.x + threadIdx.x;
  if (index >= a.heads * pieces) return;
  int head = index / pieces, c = (index % pieces) * 8;
  const float* cos = a.cos + (i64)a.positions[row] * half;
  const float* sin = a.sin + (i64)a.positions[row] * half;
  activation* x = a.x + row * a.x_stride + head * a.head_stride + a.start;
  float u[8];
  load_eight(x, c, width, u);
  if (a.half_split) {
    float v[8], cosines[8], sines[8];
    load_eight(x + half, c, half, v);
    load_eight(cos, c, half, cosines);
    load_eight(sin, c, half, sines);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float first = u[i] * cosines[i] - v[i] * sines[i];
      v[i] = u[i] * sines[i] + v[i] * cosines[i];
      u[i] = first;
    }
    store_eight(x + half, c, half, v);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      int pair = min((c + i) / 2, half - 1);
      float first = u[i] * cos[pair] - u[i + 1] * sin[pair];
      u[i + 1] = u[i] * sin[pair] + u[i + 1] * cos[pair];
      u[i] = first;
    }
  }
  store_eight(x, c, width, u);
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
  i64 row = blockIdx.x;
  i64 from = a.row_indices ? a.row_indices[row] : row;
  int columns = (int)a.part_columns, pieces = (columns + 7) / 8;
  int index = blockIdx.y * blockDim.x + threadIdx.x;
  if (index >= a.parts * pieces) return;
  int part = index / pieces, c = (index % pieces) * 8;
  float v[8];
  load_eight(a.x + from * a.x_stride + part * a.x_part, c, columns, v);
  store_eight(a.out + row * a.out_stride + part * a.out_part, c, columns, v);
}

struct QuantizeArgs {
  QuantizedRows to;
  const activation* x;
  i64 x_stride, columns;
  const int* row_indices;  // [rows] rows of x, or null for the same rows
};

extern "C" __global__ void quantize(const __grid_constant__ QuantizeArgs a) {
  i64 row = blockIdx.x;
  i64 from = a.row_indices ? a.row_indices[row] : row;
  int columns = (int)a.columns, piece = blockIdx.y * blockDim.x + threadIdx.x;
  float v[8];
  load_eight(a.x + from * a.x_stride, piece * 8, columns, v);
  quantize_eight(a.to, row, piece, (columns + kScaleGroup - 1) / kScaleGroup, v);
}

struct GatherArgs {
  QuantizedRows to, from;
  i64 groups;
  const int* row_indices;  // [rows] rows of `from`
};

/** Quantised rows, 16 codes a thread. */
extern "C" __global__ void gather_quantized(const __grid_constant__ GatherArgs a) {
  i64 row = blockIdx.x, from = a.row_indices[row];
  int piece = blockIdx.y * blockDim.x + threadIdx.x, group = piece >> 3;
  if (group >= a.groups) return;
  uint4 codes = *(const uint4*)(a.from.codes + from * a.from.code_stride + piece * 16);
  *(uint4*)(a.to.codes + row * a.to.code_stride + piece * 16) = codes;
  if ((piece & 7) == 0) {
    a.to.scales[row * a.to.scale_row + group * a.to.scale_group] =
        a.from.scales[from * a.from.scale_row + group * a.from.scale_group];
  }
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
