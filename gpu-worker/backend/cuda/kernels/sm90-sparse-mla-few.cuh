// Consumers of sm90-sparse-mla.cuh for 8, 16 or 32 heads of a row: operands change sides, so that
// tokens and dimensions are the products' 64 rows and heads their columns, of which no one is
// padding. Scores are [64 tokens, heads], outputs [dimensions, heads].
//
// The order of work is that of sm90-sparse-mla-64.cuh. A head's maximum and sum go over rows here,
// which four warps have, and weights are always the second operand of the values' product: so both
// groups read them from shared memory, where they lie [heads, 64 tokens].

/** Registers of a product of 64 rows. */
#define kProductRegisters (kBlockHeads / 2)
/** Heads of which a thread has sums. */
#define kEach (kBlockHeads / 4)
static_assert(kBlockHeads == 8 || kBlockHeads == 16 || kBlockHeads == 32, "columns of a product");

/** d += a b, a by columns: its summed dimension is the outer one. */
PRODUCT(wgmma_bf16_columns, "m64n8k16", "bf16.bf16", "1, 1, 1, 0", 4, "4", "5", "6")
PRODUCT(wgmma_bf16_columns, "m64n16k16", "bf16.bf16", "1, 1, 1, 0", 8, "8", "9", "10")
PRODUCT(wgmma_bf16_columns, "m64n32k16", "bf16.bf16", "1, 1, 1, 0", 16, "16", "17", "18")

/** As store_matrices, each matrix turned: row l % 8 of what is stored is a column of it. */
__device__ __forceinline__ void store_turned(u32 to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
/** The same of two matrices, whose rows' places the first 16 lanes say. */
__device__ __forceinline__ void store_turned(u32 to, u32 a, u32 b) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(a),
               "r"(b)
               : "memory");
}

/** Sixteen rows of a product, as pairs of adjacent heads, each head's a row of 16 at `place`. */
template <typename Place>
__device__ __forceinline__ void store_by_heads(const u32 (&pairs)[kProductRegisters / 2],
                                               const Place& place) {
  const int lane = threadIdx.x & 31, half = (lane >> 3) & 1;
#if kBlockHeads == 8
  store_turned(place(lane & 7, half), pairs[0], pairs[1]);
#else
#pragma unroll
  for (int i = 0; i < kBlockHeads / 16; i++) {
    u32 to = place(16 * i + 8 * (lane >> 4) + (lane & 7), half);
    store_turned(to, pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
  }
#endif
}

/** True if `mine` is true in any of the threads that meet at the barrier. */
template <int kBarrier, int kThreadsThere>
__device__ __forceinline__ bool any_of_threads(bool mine) {
  u32 any;
  asm volatile(
      "{\n.reg .pred mine, any;\nsetp.ne.u32 mine, %1, 0;\n"
      "bar.red.or.pred any, %2, %3, mine;\nselp.u32 %0, 1, 0, any;\n}\n"
      : "=r"(any)
      : "r"((u32)mine), "n"(kBarrier), "n"(kThreadsThere)
      : "memory");
  if (kTraced) threads_meet<kBarrier, kThreadsThere>();
  return any != 0;
}

template <int kGroup>
__device__ __forceinline__ void consume(const SparseMlaArgs& a, u8* shared, u32 base) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int step = gridDim.x, works = works_of(a);
  const u32 barriers = base + kBarriers, queries = base;
  const u32 tile = base + kBuffers + kGroup * kTileBytes;
  const float scale = a.scale.v * 1.4426950408889634f;
  // [groups, 64], and of few heads [groups, warps, heads] and [2 rows, groups, warps, heads].
  float* maxima = (float*)(shared + kMaxima);
  float* tops = (float*)(shared + kTops) + kGroup * 4 * kBlockHeads;
  float* sums = (float*)(shared + kSums);
  // Registers 4 j + 2 h + i of a product hold token or dimension 16 warp + lane / 4 + 8 h and head
  // 8 j + 2 (lane % 4) + i, which is the thread's head 2 j + i.
  auto head_of = [&](int e) { return 8 * (e >> 1) + 2 * (lane & 3) + (e & 1); };
  auto each_of = [](int i) { return 2 * (i >> 2) + (i & 1); };
  u32 uses = 0, rows_begun = 0;

  int next_count = count_of(a, blockIdx.x);
  for (int w = blockIdx.x; w < works; w += step) {
    Work work = work_at(a, w, next_count);
    next_count = count_of(a, w + step);
    const int blocks = work.end - work.first, pairs = (blocks + 1) / 2;
    float out[4][kProductRegisters], maximum[kEach], sum[kEach];
#pragma unroll
    for (int c = 0; c < 4; c++) {
#pragma unroll
      for (int i = 0; i < kProductRegisters; i++) out[c][i] = 0.f;
    }
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      maximum[e] = minus_infinity();
      sum[e] = 0.f;
    }
    if (pairs > 0) {
      barrier_wait(barriers + kQueriesFull, rows_begun & 1);
      fence_async();
      rows_begun++;
    }

    // Scores of the 64 tokens of this group's buffer, started and not waited for.
    float scores[kProductRegisters];
    auto start_scores = [&]() {
      auto chunk_scores = [&](int c, bool first) {
        u64 key = k_major(tile + c * kChunkBytes), query = k_major(queries + c * kQueryChunk);
#pragma unroll
        for (int k = 0; k < 4; k++) wgmma_bf16(scores, key + 2 * k, query + 2 * k, !first || k > 0);
      };
      barrier_wait(barriers + kFull(kGroup, 0), uses & 1);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < 4; c++) chunk_scores(4 * kGroup + c, c == 0);
      barrier_wait(barriers + kFull(kGroup, 1), uses & 1);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < 4; c++) chunk_scores(4 * (1 - kGroup) + c, false);
      chunk_scores(8, false);
      wgmma_commit();
      uses++;
    };

    // Takes over maxima: what was summed before shrinks with them, which is rare.
    auto adopt = [&](const float (&next)[kEach]) {
      float shrink[kEach];
      bool shrinks = false;
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        shrink[e] = next[e] == maximum[e] ? 1.f : exp2_fast((maximum[e] - next[e]) * scale);
        maximum[e] = next[e];
        sum[e] *= shrink[e];
        shrinks |= shrink[e] != 1.f;
      }
      if (__any_sync(0xffffffffu, shrinks)) {
        wgmma_wait<0>();
#pragma unroll
        for (int c = 0; c < 4; c++) {
#pragma unroll
          for (int i = 0; i < kProductRegisters; i++) out[c][i] *= shrink[each_of(i)];
        }
      }
    };

    // Maxima over the block's tokens are found if a score exceeds its head's by the headroom: over
    // a warp's sixteen by shuffles, then over four warps.
    float next[kEach], added[kEach];
    auto softmax = [&](int b) {
      if (b == (work.count + 63) / 64 - 1) {
        int token = b * 64 + warp * 16 + (lane >> 2);
#pragma unroll
        for (int i = 0; i < kProductRegisters; i++) {
          if (token + 8 * ((i >> 1) & 1) >= work.count) scores[i] = minus_infinity();
        }
      }
      bool exceeds = false;
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        const float* of = scores + 4 * (e >> 1) + (e & 1);
        next[e] = maximum[e];
        exceeds |= (fmaxf(of[0], of[2]) - maximum[e]) * scale > kHeadroom;
      }
      if (any_of_threads<kGroupTogether + kGroup, 128>(exceeds)) {
#pragma unroll
        for (int e = 0; e < kEach; e++) {
          const float* of = scores + 4 * (e >> 1) + (e & 1);
          float top = fmaxf(of[0], of[2]);
#pragma unroll
          for (int d = 4; d < 32; d <<= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d));
          if (lane < 4) tops[warp * kBlockHeads + head_of(e)] = top;
        }
        threads_meet<kGroupTogether + kGroup, 128>();
#pragma unroll
        for (int e = 0; e < kEach; e++) {
          float top = tops[head_of(e)];
#pragma unroll
          for (int i = 1; i < 4; i++) top = fmaxf(top, tops[i * kBlockHeads + head_of(e)]);
          if ((top - maximum[e]) * scale > kHeadroom) next[e] = top;
        }
      }
      if (warp == 0 && lane < 4) {
#pragma unroll
        for (int e = 0; e < kEach; e++) maxima[kGroup * 64 + head_of(e)] = next[e];
      }
    };
    // Scores to weights, which both groups then have. Nobody reads those of the block before any
    // more: this group has met since, and waited for the other's.
    auto leave_weights = [&]() {
#pragma unroll
      for (int i = 0; i < kProductRegisters; i++) {
        scores[i] = exp2_fast(fmaf(scores[i], scale, -(next[each_of(i)] * scale)));
      }
      u32 weights[kProductRegisters / 2];
#pragma unroll
      for (int i = 0; i < kProductRegisters / 2; i++)
        weights[i] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        const float* of = scores + 4 * (e >> 1) + (e & 1);
        added[e] = of[0] + of[2];
      }
      store_by_heads(weights, [&](int head, int half) {
        return base + kWeights + kGroup * kQueryChunk + swizzled(head, 2 * warp + half);
      });
      fence_async();
      asm volatile("bar.arrive %0, 256;" ::"n"(kWeightsReady + kGroup) : "memory");
      threads_meet<kGroupTogether + kGroup, 128>();
    };
    auto await_weights = [&]() {
      asm volatile("bar.sync %0, 256;" ::"n"(kWeightsReady + 1 - kGroup) : "memory");
    };
    // This group's 256 columns of a block, times the weights that its owner left.
    auto start_values = [&](int owner) {
      const u32 columns = base + kBuffers + owner * kTileBytes + kGroup * 4 * kChunkBytes;
      u64 weight = k_major(base + kWeights + owner * kQueryChunk);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; k++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
          u64 value = row_major(columns + c * kChunkBytes, kChunkBytes) + k * (2048 >> 4);
          wgmma_bf16_columns(out[c], value, weight + 2 * k, 1);
        }
      }
      wgmma_commit();
    };
    auto adopt_other = [&]() {
      float theirs[kEach];
#pragma unroll
      for (int e = 0; e < kEach; e++) theirs[e] = maxima[(1 - kGroup) * 64 + head_of(e)];
      adopt(theirs);
    };
    auto give = [&](int buffer, int far) {
      warp_arrive(barriers + kEmpty(buffer, far));
    };
    auto give_queries = [&](bool last) {
      if (last) warp_arrive(barriers + kQueriesEmpty);
    };

    auto take_own_values = [&]() {
      leave_weights();
      adopt(next);
#pragma unroll
      for (int e = 0; e < kEach; e++) sum[e] += added[e];
      start_values(kGroup);
      wgmma_wait<0>();
      give(kGroup, 0);
    };
    auto take_other_values = [&]() {
      await_weights();
      adopt_other();
      start_values(1 - kGroup);
    };
    const int full_pairs = blocks / 2;
    for (int pair = 0; pair < full_pairs; pair++) {
      const int b = work.first + 2 * pair + kGroup;
      const bool last = 2 * pair + 2 == blocks;
      if (kGroup == 1) asm volatile("bar.sync %0, 256;" ::"n"(kScoresStarted) : "memory");
      start_scores();
      if (kGroup == 0) {
        asm volatile("bar.arrive %0, 256;" ::"n"(kScoresStarted) : "memory");
        wgmma_wait<0>();
        give_queries(last);
        softmax(b);
        take_own_values();
        take_other_values();
        wgmma_wait<0>();
        give(1, 1);
      } else {
        take_other_values();
        wgmma_wait<1>();
        give_queries(last);
        softmax(b);
        wgmma_wait<0>();
        give(0, 1);
        take_own_values();
      }
    }
    if (blocks & 1) {
      // The first group's block alone.
      if (kGroup == 0) {
        start_scores();
        wgmma_wait<0>();
        give_queries(true);
        softmax(work.end - 1);
        take_own_values();
      } else {
        give_queries(true);
        take_other_values();
        wgmma_wait<0>();
        give(0, 1);
      }
    }
    // Each warp has summed the weights of its own tokens. Two rows take turns with the place, as
    // for 64 heads.
    if (pairs > 0) {
      float* total = sums + (rows_begun & 1) * 8 * kBlockHeads;
#pragma unroll
      for (int e = 0; e < kEach; e++) {
#pragma unroll
        for (int d = 4; d < 32; d <<= 1) sum[e] += __shfl_xor_sync(0xffffffffu, sum[e], d);
        if (lane < 4) total[(kGroup * 4 + warp) * kBlockHeads + head_of(e)] = sum[e];
      }
      threads_meet<kRowEnds, 256>();
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        sum[e] = total[head_of(e)];
#pragma unroll
        for (int i = 1; i < 8; i++) sum[e] += total[i * kBlockHeads + head_of(e)];
      }
    }
    float factor[kEach];
#pragma unroll
    for (int e = 0; e < kEach; e++) factor[e] = sum[e] > 0.f ? 1.f / sum[e] : 0.f;
    const bool writes_lse = kGroup == 0 && warp == 0 && lane < 4;
    const int first_column = kGroup * 256 + warp * 16;
#if kSplit
    i64 at = ((i64)work.row * a.splits + work.split) * a.heads + work.heads_at;
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      if (pairs > 0) {
        float* to = a.partial + (at + head_of(e)) * kLatent + first_column + (lane >> 2);
#pragma unroll
        for (int c = 0; c < 4; c++) {
          const float* of = out[c] + 4 * (e >> 1) + (e & 1);
          to[64 * c] = of[0] * factor[e];
          to[64 * c + 8] = of[2] * factor[e];
        }
      }
      float lse = pairs > 0 ? maximum[e] * a.scale.v + logf(sum[e]) : minus_infinity();
      if (writes_lse) a.partial_lse[at + head_of(e)] = lse;
    }
#else
    // Through a kilobyte of shared memory a warp, 16 columns of all heads at a time.
    const u32 staging = base + kStaging + (kGroup * 4 + warp) * 1024;
    auto piece_at = [&](int head, int half) { return staging + head * 32 + half * 16; };
    u16* to = a.out + work.row * a.out_stride + (i64)work.heads_at * kLatent + first_column;
#pragma unroll
    for (int c = 0; c < 4; c++) {
      u32 columns[kProductRegisters / 2];
#pragma unroll
      for (int i = 0; i < kProductRegisters / 2; i++) {
        columns[i] = pack_bf16(out[c][2 * i] * factor[each_of(2 * i)],
                               out[c][2 * i + 1] * factor[each_of(2 * i + 1)]);
      }
      store_by_heads(columns, piece_at);
      __syncwarp();
#pragma unroll
      for (int i = lane; i < 2 * kBlockHeads; i += 32) {
        *(uint4*)(to + (i >> 1) * kLatent + c * 64 + (i & 1) * 8) =
            load_shared(piece_at(i >> 1, i & 1));
      }
      __syncwarp();
    }
    if (a.lse && writes_lse) {
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        float lse =
            sum[e] > 0.f ? maximum[e] * a.scale.v + logf(sum[e]) : __int_as_float(0x7f800000);
        a.lse[work.row * a.lse_stride + work.heads_at + head_of(e)] = lse;
      }
    }
#endif
  }
}
