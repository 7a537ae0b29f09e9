// Attention over the cached latents in float32, for any shape: the plain kernels, and the twins of
// the tensor core ones. A row's result depends on its own keys alone, in ascending order.

struct AttendArgs {
  activation* out;  // [rows, out_stride], heads * latent
  i64 out_stride;
  const activation* q;  // [rows, q_stride], heads * (latent + rope)
  i64 q_stride;
  const u8* cache;
  i64 entry_bytes, format, latent, rope, heads;
  const int* positions;
  const int* tables;
  const i64* table_start;
  const int* selected;  // [rows, width], or null: all tokens up to the position
  i64 width;
  const int* counts;  // [rows]
  float* lse;         // [rows, lse_stride], or null
  i64 lse_stride;
  real scale;
};

/** Elements [0, latent + rope) of one entry, by the lanes of a warp; bfloat16 holds all of them. */
template <typename T>
__device__ __forceinline__ void load_entry(const u8* entry, i64 format, int latent, int rope,
                                           T* out) {
  int lane = threadIdx.x & 31, width = latent + rope;
  if (format == kDtypeF32) {
    for (int c = lane; c < width; c += 32) store(out + c, ((const float*)entry)[c]);
  } else if (format == kDtypeBf16) {
    for (int c = lane; c < width; c += 32) store(out + c, load((const u16*)entry + c));
  } else {
    const u8* scales = entry + latent;
    int groups = (latent + kScaleGroup - 1) / kScaleGroup;
    for (int c = lane; c < latent; c += 32) {
      const u8* s = scales + 4 * (c / kScaleGroup);
      float scale = __uint_as_float(s[0] | s[1] << 8 | s[2] << 16 | (u32)s[3] << 24);
      store(out + c, e4m3_value(entry[c]) * scale);
    }
    const u8* tail = scales + 4 * groups;
    for (int c = lane; c < rope; c += 32) {
      store(out + latent + c, bf16_value(tail[2 * c] | tail[2 * c + 1] << 8));
    }
  }
}

__device__ __forceinline__ const u8* entry_of(const u8* cache, i64 entry_bytes, const int* table,
                                              int position) {
  return cache + ((i64)table[position >> 6] * 64 + (position & 63)) * entry_bytes;
}

#ifndef kHeads
#define kHeads 8
#endif
#define kKeys 32
/** Elements of entries that a thread reads at a time. */
#define kBatch 10
/** Output columns of a thread: latent up to 128 * 5. */
#define kColumnsMax 5

/** Element `c` of an entry as a float. */
__device__ __forceinline__ float entry_value(const u8* entry, i64 format, int latent, int c) {
  if (format == kDtypeF32) return ((const float*)entry)[c];
  if (format == kDtypeBf16) return bf16_value(((const u16*)entry)[c]);
  const u8* scales = entry + latent;
  if (c < latent) {
    const u8* s = scales + 4 * (c / kScaleGroup);
    float scale = __uint_as_float(s[0] | s[1] << 8 | s[2] << 16 | (u32)s[3] << 24);
    return e4m3_value(entry[c]) * scale;
  }
  const u8* tail = scales + 4 * ((latent + kScaleGroup - 1) / kScaleGroup) + 2 * (c - latent);
  return bf16_value(tail[0] | tail[1] << 8);
}

/**
 * A block of 128 threads takes one row and some heads: 8, or 2 where there would be fewer blocks
 * than SMs, with the same result. Per 32 keys: entries to shared memory, a score per (head, key),
 * online softmax with a warp for a head or two, then every thread adds to its columns. While 32
 * keys are computed, the places of the next ones are looked up.
 */
extern "C" __global__ void __launch_bounds__(128) attend(const __grid_constant__ AttendArgs a) {
  extern __shared__ float shared[];
  int latent = (int)a.latent, rope = (int)a.rope, width = latent + rope, pitch = width + 1;
  i64 row = blockIdx.y;
  int first_head = blockIdx.x * kHeads;
  int heads = min(kHeads, (int)a.heads - first_head);
  float* q = shared;                       // [8][pitch]
  float* keys = q + kHeads * pitch;        // [32][pitch]
  float* scores = keys + kKeys * pitch;    // [8][32]
  float* state = scores + kHeads * kKeys;  // [8] maximum, [8] sum, [8] shrink
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;

  for (int i = t; i < heads * width; i += 128) {
    q[(i / width) * pitch + i % width] = load(a.q + row * a.q_stride + (i64)first_head * width + i);
  }
  if (t < kHeads) {
    state[t] = minus_infinity();
    state[kHeads + t] = 0.f;
  }
  float total[kHeads][kColumnsMax] = {};
  const int* table = a.tables + a.table_start[row];
  const int* list = a.selected ? a.selected + row * a.width : nullptr;
  int count = list ? a.counts[row] : a.positions[row] + 1;
  __shared__ const u8* entries[kKeys];
  auto entry_at = [&](int index) -> const u8* {
    if (t >= kKeys || index >= count) return nullptr;
    return entry_of(a.cache, a.entry_bytes, table, list ? list[index] : index);
  };
  const u8* next = entry_at(t);

  for (int start = 0; start < count; start += kKeys) {
    int here = min(kKeys, count - start);
    if (t < kKeys) entries[t] = next;
    __syncthreads();
    next = entry_at(start + kKeys + t);
    // All of a batch is on its way before any of it is stored, which a store between would forbid.
    int k = t / width, c = t % width;
    for (int i = t; i < here * width; i += 128 * kBatch) {
      float values[kBatch];
      int at[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; j++) {
        bool valid = i + 128 * j < here * width;
        at[j] = valid ? k * pitch + c : -1;
        values[j] = valid ? entry_value(entries[k], a.format, latent, c) : 0.f;
        for (c += 128; c >= width; c -= width) k++;
      }
#pragma unroll
      for (int j = 0; j < kBatch; j++) {
        if (at[j] >= 0) keys[at[j]] = values[j];
      }
    }
    __syncthreads();
    for (int h = warp; h < heads; h += 4) {
      float dot = 0.f;
      if (lane < here) {
        const float* query = q + h * pitch;
        const float* key = keys + lane * pitch;
#pragma unroll 8
        for (int c = 0; c < width; c++) dot = fmaf(query[c], key[c], dot);
      }
      float score = lane < here ? dot * a.scale.v : minus_infinity();
      float before = state[h];
      float maximum = fmaxf(before, warp_max(score));
      float p = lane < here ? exp_reference(score - maximum) : 0.f;
      float sum = warp_sum(p);
      float shrink = before == minus_infinity() ? 0.f : exp_reference(before - maximum);
      scores[h * kKeys + lane] = p;
      __syncwarp();
      if (lane == 0) {
        state[h] = maximum;
        state[kHeads + h] = state[kHeads + h] * shrink + sum;
        state[2 * kHeads + h] = shrink;
      }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < kHeads; h++) {
      if (h >= heads) break;
      float shrink = state[2 * kHeads + h];
#pragma unroll
      for (int i = 0; i < kColumnsMax; i++) total[h][i] *= shrink;
    }
    for (int k = 0; k < here; k++) {
      float value[kColumnsMax];
#pragma unroll
      for (int i = 0; i < kColumnsMax; i++) {
        int c = t + 128 * i;
        value[i] = c < latent ? keys[k * pitch + c] : 0.f;
      }
#pragma unroll
      for (int h = 0; h < kHeads; h++) {
        float p = scores[h * kKeys + k];
#pragma unroll
        for (int i = 0; i < kColumnsMax; i++) total[h][i] = fmaf(p, value[i], total[h][i]);
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int h = 0; h < kHeads; h++) {
    if (h >= heads) break;
    float sum = state[kHeads + h];
    float factor = sum > 0.f ? 1.f / sum : 0.f;
#pragma unroll
    for (int i = 0; i < kColumnsMax; i++) {
      int c = t + 128 * i;
      if (c >= latent) continue;
      store(a.out + row * a.out_stride + (i64)(first_head + h) * latent + c, total[h][i] * factor);
    }
  }
  if (a.lse && t < heads) {
    float sum = state[kHeads + t];
    float lse = sum > 0.f ? state[t] + logf(sum) : __int_as_float(0x7f800000);
    a.lse[row * a.lse_stride + first_head + t] = lse;
  }
}

// ---- keys and values expanded by kv_b ----------------------------------------------------------

struct EntriesArgs {
  activation* out;  // [tokens, out_stride]: latent, then rope
  i64 out_stride;
  const u8* cache;
  i64 entry_bytes, format, latent, rope;
  const int* table;
  i64 first;  // position of the first token
};

/** A warp per token. */
extern "C" __global__ void read_entries(const __grid_constant__ EntriesArgs a) {
  int token = blockIdx.x;
  const u8* entry = entry_of(a.cache, a.entry_bytes, a.table, (int)a.first + token);
  load_entry(entry, a.format, (int)a.latent, (int)a.rope, a.out + token * a.out_stride);
}

struct ExpandedArgs {
  const activation* q;  // [rows, q_stride], heads * (nope + rope)
  i64 q_stride;
  const activation* expanded;  // [tokens, expanded_stride], heads * (nope + value)
  i64 expanded_stride;
  const activation* entries;  // [tokens, entry_stride]: the rope part from `latent` on
  i64 entry_stride, latent;
  i64 nope, rope, value, heads;
  const int* positions;
  const int* selected;
  i64 width;
  const int* counts;
  i64 first_row, first, tokens;  // the sequence's first row; tokens [first, first + tokens)
  float* state;  // [rows of the sequence, heads, 2 + value]: maximum, sum, accumulated
  activation* out;  // [rows, out_stride], written by the last pass
  i64 out_stride, last;
  real scale;
};

/** A warp takes one (row, head) and folds the tokens of this pass into its state. */
extern "C" __global__ void __launch_bounds__(32)
attend_expanded(const __grid_constant__ ExpandedArgs a) {
  int lane = threadIdx.x;
  i64 h = blockIdx.x, local = blockIdx.y, row = a.first_row + local;
  int nope = (int)a.nope, rope = (int)a.rope, value = (int)a.value;
  float* state = a.state + (local * a.heads + h) * (2 + value);
  float maximum = a.first == 0 ? minus_infinity() : state[0];
  float sum = a.first == 0 ? 0.f : state[1];
  const activation* q = a.q + row * a.q_stride + h * (nope + rope);
  int end = min((int)(a.first + a.tokens), a.positions[row] + 1);
  const int* list = a.selected ? a.selected + row * a.width : nullptr;
  int from = (int)a.first, to = end;
  if (list) {
    int count = a.counts[row];
    from = 0;
    for (int step = 1 << 30; step > 0; step >>= 1) {
      if (from + step <= count && list[from + step - 1] < a.first) from += step;
    }
    to = from;
    for (int step = 1 << 30; step > 0; step >>= 1) {
      if (to + step <= count && list[to + step - 1] < end) to += step;
    }
  }
  if (a.first == 0) {
    for (int c = lane; c < value; c += 32) state[2 + c] = 0.f;
  }
  __syncwarp();
  for (int start = from; start < to; start += 32) {
    int index = start + lane;
    bool active = index < to;
    int token = (int)((active ? (list ? list[index] : index) : a.first) - a.first);
    const activation* expanded = a.expanded + token * a.expanded_stride + h * (nope + value);
    const activation* tail = a.entries + token * a.entry_stride + a.latent;
    float dot = 0.f;
    for (int c = 0; c < nope; c++) dot = fmaf(load(q + c), load(expanded + c), dot);
    for (int c = 0; c < rope; c++) dot = fmaf(load(q + nope + c), load(tail + c), dot);
    float score = active ? dot * a.scale.v : minus_infinity();
    float next = fmaxf(maximum, warp_max(score));
    float p = active ? exp_reference(score - next) : 0.f;
    float shrink = maximum == minus_infinity() ? 0.f : exp_reference(maximum - next);
    sum = sum * shrink + warp_sum(p);
    maximum = next;
    for (int c0 = 0; c0 < value; c0 += 32) {
      int c = c0 + lane;
      float total = c < value ? state[2 + c] * shrink : 0.f;
      for (int k = 0; k < min(32, to - start); k++) {
        float weight = __shfl_sync(0xffffffffu, p, k);
        int other = __shfl_sync(0xffffffffu, token, k);
        if (c < value) {
          const activation* v = a.expanded + other * a.expanded_stride + h * (nope + value) + nope;
          total = fmaf(weight, load(v + c), total);
        }
      }
      if (c < value) state[2 + c] = total;
    }
  }
  if (lane == 0) {
    state[0] = maximum;
    state[1] = sum;
  }
  __syncwarp();
  if (!a.last) return;
  for (int c = lane; c < value; c += 32) {
    store(a.out + row * a.out_stride + h * value + c, state[2 + c] * (1.f / sum));
  }
}
