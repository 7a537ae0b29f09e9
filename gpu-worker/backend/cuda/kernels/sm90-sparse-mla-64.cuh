// Consumers of sm90-sparse-mla.cuh for 64 heads of a row, which are the products' 64 rows.

/**
 * Columns of a product of values. With 128 registers a thread at the launch, the compiler takes no
 * product of 256, whatever a group asks for later.
 */
#define kProductColumns (kFp8 ? 128 : 256)
#define kProducts (256 / kProductColumns)
#define kSumsEach (kProductColumns / 2)

template <int kGroup>
__device__ __forceinline__ void consume(const SparseMlaArgs& a, u8* shared, u32 base) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int step = gridDim.x / kCtas, works = works_of(a);
  const u32 barriers = base + kBarriers, barriers_there = other_block(barriers);
  const u32 tile = base + kBuffers + kGroup * kTileBytes, queries = base;
  const u32 tile_other = base + kBuffers + (1 - kGroup) * kTileBytes;
  const int own_head = warp * 16 + (lane >> 2);
  const float scale = a.scale.v * 1.4426950408889634f;
  float* maxima = (float*)(shared + kMaxima);
  float* sums = (float*)(shared + kSums);
  u32 uses = 0, rows_begun = 0;

  int next_count = count_of(a, blockIdx.x / kCtas);
  for (int w = blockIdx.x / kCtas; w < works; w += step) {
    Work work = work_at(a, w, next_count);
    next_count = count_of(a, w + step);
    const int blocks = work.end - work.first, pairs = (blocks + 1) / 2;
    float out[kProducts][kSumsEach], maximum[2] = {minus_infinity(), minus_infinity()},
                                     sum[2] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < 128; i++) out[i / kSumsEach][i % kSumsEach] = 0.f;
    if (pairs > 0) {
      barrier_wait(barriers + kQueriesFull, rows_begun & 1);
      fence_async();
      rows_begun++;
    }

    // Scores of 64 heads and the 64 tokens of this group's buffer, started and not waited for.
    float scores[32];
    auto start_scores = [&]() {
      auto chunk_scores = [&](int c, bool first) {
        u64 query = k_major(queries + c * kChunkBytes), key = k_major(tile + c * kChunkBytes);
#pragma unroll
        for (int k = 0; k < 4; k++) wgmma_bf16(scores, query + 2 * k, key + 2 * k, !first || k > 0);
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

    // Takes over a maximum: what was summed before shrinks with it, which is rare.
    auto adopt = [&](const float (&next)[2]) {
      float shrink[2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        shrink[r] = next[r] == maximum[r] ? 1.f : exp2_fast((maximum[r] - next[r]) * scale);
        maximum[r] = next[r];
        sum[r] *= shrink[r];
      }
      if (__any_sync(0xffffffffu, shrink[0] != 1.f || shrink[1] != 1.f)) {
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < 128; i++) out[i / kSumsEach][i % kSumsEach] *= shrink[(i >> 1) & 1];
      }
    };

    // Scores to weights, as the left operand of the values' product has them in registers.
    u32 weights[16];
    float next[2];
    auto softmax = [&](int b) {
      if (b == (work.count + 63) / 64 - 1) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
          int token = b * 64 + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
          if (token >= work.count) scores[i] = minus_infinity();
        }
      }
      // A thread has two heads, in the registers with bit 1 of the index clear and set.
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float top = scores[2 * r];
#pragma unroll
        for (int i = 0; i < 32; i++) {
          if (((i >> 1) & 1) == r) top = fmaxf(top, scores[i]);
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        next[r] = (top - maximum[r]) * scale > kHeadroom ? top : maximum[r];
        if ((lane & 3) == 0) maxima[kGroup * 64 + own_head + 8 * r] = next[r];
      }
    };
    float added[2];
    auto weigh = [&]() {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float shift = next[r] * scale;
        added[r] = 0.f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float low = exp2_fast(fmaf(scores[4 * i + 2 * r], scale, -shift));
          float high = exp2_fast(fmaf(scores[4 * i + 2 * r + 1], scale, -shift));
          added[r] += low + high;
          weights[2 * i + r] = pack_bf16(low, high);
        }
      }
    };
    // The weights go where the block's rope part was: all warps of the group have scored it.
    auto leave_weights = [&]() {
      asm volatile("bar.sync %0, 128;" ::"n"(kGroupTogether + kGroup) : "memory");
      u32 head = warp * 16 + (lane & 15);
#pragma unroll
      for (int k = 0; k < 4; k++) {
        u32 at = tile + 8 * kChunkBytes + swizzled(head, 2 * k + (lane >> 4));
        store_matrices(at, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2],
                       weights[4 * k + 3]);
      }
      fence_async();
      asm volatile("bar.arrive %0, 256;" ::"n"(kWeightsReady + kGroup) : "memory");
    };
    auto await_weights = [&]() {
      asm volatile("bar.sync %0, 256;" ::"n"(kWeightsReady + 1 - kGroup) : "memory");
    };
    auto start_own_values = [&]() {
      u64 value = row_major(tile + kGroup * 4 * kChunkBytes, kChunkBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4 * kProducts; k++) {
        const u32* w = weights + 4 * (k / kProducts);
        u64 at = value + (k % kProducts) * (2 * kChunkBytes >> 4) + (k / kProducts) * (2048 >> 4);
        wgmma_bf16_rows(out[k % kProducts], w[0], w[1], w[2], w[3], at);
      }
      wgmma_commit();
    };
    auto start_other_values = [&]() {
      u64 weight = k_major(tile_other + 8 * kChunkBytes);
      u64 value = row_major(tile_other + kGroup * 4 * kChunkBytes, kChunkBytes);
      fence_async();
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4 * kProducts; k++) {
        u64 at = value + (k % kProducts) * (2 * kChunkBytes >> 4) + (k / kProducts) * (2048 >> 4);
        wgmma_bf16_rows(out[k % kProducts], weight + 2 * (k / kProducts), at);
      }
      wgmma_commit();
    };
    auto adopt_other = [&]() {
      float theirs[2];
#pragma unroll
      for (int r = 0; r < 2; r++) theirs[r] = maxima[(1 - kGroup) * 64 + own_head + 8 * r];
      adopt(theirs);
    };
    auto give = [&](int buffer, int far) {
      give_back(barriers + kEmpty(buffer, far), barriers_there + kEmpty(buffer, far));
    };
    auto give_queries = [&](bool last) {
      if (last) warp_arrive(barriers + kQueriesEmpty);
    };

    auto take_own_values = [&]() {
      leave_weights();
      adopt(next);
      sum[0] += added[0];
      sum[1] += added[1];
      start_own_values();
      wgmma_wait<0>();
      give(kGroup, 0);
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
        weigh();
        take_own_values();
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<0>();
        give(1, 1);
      } else {
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<1>();
        give_queries(last);
        softmax(b);
        weigh();
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
        weigh();
        take_own_values();
      } else {
        give_queries(true);
        await_weights();
        adopt_other();
        start_other_values();
        wgmma_wait<0>();
        give(0, 1);
      }
    }
    // Each group has summed the weights of its own blocks. Two rows take turns with the place:
    // after a row of one block, the first group waits for nothing before it ends its next one.
    if (pairs > 0) {
      float* total = sums + (rows_begun & 1) * 128;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
        if ((lane & 3) == 0) total[kGroup * 64 + own_head + 8 * r] = sum[r];
      }
      threads_meet<kRowEnds, 256>();
#pragma unroll
      for (int r = 0; r < 2; r++) sum[r] = total[own_head + 8 * r] + total[64 + own_head + 8 * r];
    }
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) factor[r] = sum[r] > 0.f ? 1.f / sum[r] : 0.f;
    i64 first_head = work.heads_at + warp * 16;
    bool writes_lse = kGroup == 0 && (lane & 3) == 0;
#if kSplit
    i64 at = ((i64)work.row * a.splits + work.split) * a.heads + first_head + (lane >> 2);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float* to = a.partial + (at + 8 * r) * kLatent + kGroup * 256 + (lane & 3) * 2;
      if (pairs > 0) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
          const float* pair = out[4 * i / kSumsEach] + 4 * i % kSumsEach + 2 * r;
          *(float2*)(to + 8 * i) = make_float2(pair[0] * factor[r], pair[1] * factor[r]);
        }
      }
      float lse = pairs > 0 ? maximum[r] * a.scale.v + logf(sum[r]) : minus_infinity();
      if (writes_lse) a.partial_lse[at + 8 * r] = lse;
    }
#else
    // Through a kilobyte of shared memory a warp, 32 columns at a time, so that rows leave in runs
    // of 64 bytes; pieces are swizzled so that neither side meets in a bank.
    u32 staging = base + kStaging + (kGroup * 4 + warp) * 1024;
    u16* to = a.out + work.row * a.out_stride + first_head * kLatent + kGroup * 256;
#pragma unroll
    for (int c = 0; c < 8; c++) {
      auto piece_at = [&](int row, int piece) {
        return staging + row * 64 + ((piece ^ ((row >> 1) & 3)) << 4);
      };
      u32 v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float* pair = out[16 * c / kSumsEach] + 16 * c % kSumsEach + 2 * i;
        v[i] = pack_bf16(pair[0] * factor[i & 1], pair[1] * factor[i & 1]);
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        store_matrices(piece_at(lane & 15, 2 * k + (lane >> 4)), v[4 * k], v[4 * k + 1],
                       v[4 * k + 2], v[4 * k + 3]);
      }
      __syncwarp();
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int row = 8 * k + (lane >> 2), piece = lane & 3;
        *(uint4*)(to + row * kLatent + c * 32 + piece * 8) = load_shared(piece_at(row, piece));
      }
      __syncwarp();
    }
    if (a.lse && writes_lse) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float lse =
            sum[r] > 0.f ? maximum[r] * a.scale.v + logf(sum[r]) : __int_as_float(0x7f800000);
        a.lse[work.row * a.lse_stride + first_head + (lane >> 2) + 8 * r] = lse;
      }
    }
#endif
  }
}
