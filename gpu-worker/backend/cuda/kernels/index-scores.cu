// The lightning indexer (docs/engine-spec.md#indexer): scores of all tokens that a row sees; the
// exact top of each row comes after (top-k.cu). Scores live in a buffer of fixed size; the host
// takes as many rows at a time as fit.

/** max(0, x), but a NaN stays one, so that a score of it is told. */
__device__ __forceinline__ float positive_part(float x) { return x < 0.f ? 0.f : x; }

struct ScoreArgs {
  const u8* keys;  // pages
  i64 page_bytes, format, dim, heads;
  const activation* queries;  // [rows, query_stride], heads * dim
  i64 query_stride;
  const float* weights;  // [rows, weight_stride]
  i64 weight_stride;
  const int* positions;    // [rows]
  const int* tables;       // block tables
  const i64* table_start;  // [rows] first entry of the row's table
  float* scores;           // [rows of the chunk, score_stride]
  i64 score_stride, first_row, width;
  real head_scale, dim_scale;  // heads^-0.5, dim^-0.5
  int* not_a_number;
};

/**
 * Tokens of a block: few, since in a decode step of a small model they are all there is to spread.
 */
#define kPlainSpan 128

/**
 * Any shape, in float32: a block takes one row and 128 tokens, a token a thread; queries
 * [heads][dim] and weights [heads] lie in shared memory, quantised if the keys are.
 */
extern "C" __global__ void __launch_bounds__(128)
index_scores(const __grid_constant__ ScoreArgs a) {
  extern __shared__ float shared[];
  i64 row = a.first_row + blockIdx.y;
  int position = a.positions[row];
  if (position < a.width) return;  // all its tokens are selected without scores
  int start = blockIdx.x * kPlainSpan;
  if (start > position) return;
  int dim = (int)a.dim, heads = (int)a.heads;
  float* q = shared;
  float* w = shared + heads * dim;
  bool fp8 = a.format == kDtypeE4m3;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int h = warp; h < heads; h += 4) {
    const activation* from = a.queries + row * a.query_stride + h * dim;
    float weight = a.weights[row * a.weight_stride + h] * a.head_scale.v;
    float scale = 1.f;
    if (fp8) {
      float amax = 0.f;
      for (int d = lane; d < dim; d += 32) amax = fmaxf(amax, fabsf(load(from + d)));
      scale = group_scale(warp_max(amax), true);
      weight *= scale;
    }
    for (int d = lane; d < dim; d += 32) {
      q[h * dim + d] = fp8 ? e4m3_value(e4m3_code(load(from + d) / scale)) : load(from + d);
    }
    if (lane == 0) w[h] = weight * a.dim_scale.v;
  }
  __syncthreads();

  const int* table = a.tables + a.table_start[row];
  int token = start + threadIdx.x;
  if (token > position) return;
  const u8* page = a.keys + (i64)table[token >> 6] * a.page_bytes;
  float score = 0.f;
  const u8* codes = page + (token & 63) * dim;
  const float* values = (const float*)page + (token & 63) * dim;
  for (int h = 0; h < heads; h++) {
    float dot = 0.f;
    const float* query = q + h * dim;
    if (fp8) {
#pragma unroll 16
      for (int d = 0; d < dim; d++) dot = dot + query[d] * e4m3_value(codes[d]);
    } else {
#pragma unroll 16
      for (int d = 0; d < dim; d++) dot = dot + query[d] * values[d];
    }
    score = score + w[h] * positive_part(dot);
  }
  if (fp8) score *= ((const float*)(page + dim * 64))[token & 63];
  // A NaN sets the flag, and counts as the least for the top-k.
  if (score != score) *a.not_a_number = 1;
  a.scores[blockIdx.y * a.score_stride + token] = fmaxf(score, minus_infinity());
}

struct IndexQueryArgs {
  u8* codes;       // [rows, heads * 128] e4m3, each row's operand tile
  float* weights;  // [rows, heads], the queries' scales and both constants folded in
  const activation* queries;
  i64 query_stride;
  const float* head_weights;
  i64 weight_stride, heads;
  real head_scale, dim_scale;
  i64 first_row;
};

/**
 * Queries of 128 as the sm90 kernel's second operand: a warp a head, four values a lane. The tile
 * is swizzled; its dimensions are in the order in which that kernel's threads hold a key's: word 16
 * p + 4 c + 2 u + h of a row (p: half, c: thread of four) is word 16 p + 8 u + 4 h + c of the
 * tile's. Weights of heads 16 n + 8 i + 2 c + j are at 16 n + 4 c + 2 i + j: a thread's lie four by
 * four.
 */
extern "C" __global__ void index_queries(const __grid_constant__ IndexQueryArgs a) {
  i64 local = blockIdx.y, row = a.first_row + local;
  int head = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (head >= a.heads) return;
  const activation* x = a.queries + row * a.query_stride + head * 128 + lane * 4;
  float values[4] = {load(x), load(x + 1), load(x + 2), load(x + 3)};
  float amax = fmaxf(fmaxf(fabsf(values[0]), fabsf(values[1])),
                     fmaxf(fabsf(values[2]), fabsf(values[3])));
  float scale = group_scale(warp_max(amax), true);
  u32 codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) codes |= e4m3_code(values[i] / scale) << (8 * i);
  int word = (lane & 16) + ((lane >> 1) & 1) * 8 + (lane & 1) * 4 + ((lane >> 2) & 3);
  u8* tile = a.codes + local * a.heads * 128;
  *(u32*)(tile + head * 128 + (((word >> 2) ^ (head & 7)) << 4) + (word & 3) * 4) = codes;
  if (lane == 0) {
    float weight = a.head_weights[row * a.weight_stride + head] * a.head_scale.v;
    int place = (head >> 4) * 16 + ((head >> 1) & 3) * 4 + ((head >> 3) & 1) * 2 + (head & 1);
    a.weights[local * a.heads + place] = weight * scale * a.dim_scale.v;
  }
}
