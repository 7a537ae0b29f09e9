import { describe, expect, test } from 'vitest';
import { hasExperts, indexerConfig, indexerType } from './config.ts';
import type { OracleConfig } from './config.ts';
import { route } from './gate.ts';
import { hadamard } from './hadamard.ts';
import { e4m3Code, fromE4m3, groupScale, throughE4m3, toBf16, toE4m3 } from './number-formats.ts';
import { ropeFrequencies, rotate, softmaxScale } from './rope.ts';
import { topIndices } from './vector.ts';

/** The published configuration's numbers. */
const deepseek = {
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rope_theta: 10000,
  rope_scaling: {
    type: 'yarn',
    factor: 40,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    mscale_all_dim: 1,
  },
  num_experts_per_tok: 2,
  n_group: 2,
  topk_group: 1,
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
} as OracleConfig; // The functions under test read no other key.

describe('rope of the oracle', () => {
  test('has the frequencies and the softmax scale that the specification lists', () => {
    const listed = [
      [0, 1],
      [10, 0.0562341],
      [11, 0.0390069],
      [15, 0.00833451],
      [20, 7.90569e-4],
      [22, 1.77828e-4],
      [23, 3.3338e-5],
      [31, 3.3338e-6],
    ] as const;
    const frequencies = ropeFrequencies(deepseek);
    for (const [pair, value] of listed) {
      expect(Math.abs((frequencies[pair] ?? 0) / value - 1)).toBeLessThan(3e-6);
    }
    expect(softmaxScale(deepseek)).toBeCloseTo(0.13523378, 8);
    expect(softmaxScale({ ...deepseek, rope_scaling: null })).toBeCloseTo(0.07216878, 8);
  });

  test('turns (2i, 2i + 1) in one layout and (i, i + 32) in the other', () => {
    const x = Float64Array.from({ length: 64 }, (_, i) => i);
    const frequencies = ropeFrequencies(deepseek);
    const angle = 5 * (frequencies[1] ?? 0);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const interleaved = rotate(x, { position: 5, frequencies, layout: 'interleaved' });
    expect([interleaved[2], interleaved[3]]).toEqual([2 * cos - 3 * sin, 2 * sin + 3 * cos]);
    const half = rotate(x, { position: 5, frequencies, layout: 'half' });
    expect([half[1], half[33]]).toEqual([cos - 33 * sin, sin + 33 * cos]);
  });
});

describe('layers of GLM in the oracle', () => {
  const typesOf = (keys: Partial<OracleConfig>, layers: number) =>
    Array.from({ length: layers }, (_, layer) => indexerType({ ...deepseek, ...keys }, layer));

  test('have an indexer by their types, a pattern, or a frequency and an offset', () => {
    // GLM-5.2: layers 0, 1, 2 and every fourth after, 21 of 78.
    const published = typesOf({ index_topk_freq: 4, index_skip_topk_offset: 3 }, 78);
    const full = published.flatMap((type, layer) => (type === 'full' ? [layer] : []));
    expect(full).toEqual([0, 1, ...Array.from({ length: 19 }, (_, i) => 2 + 4 * i)]);
    expect(typesOf({}, 3)).toEqual(['full', 'full', 'full']);
    const pattern = { index_topk_pattern: 'FSF', index_topk_freq: 4, index_skip_topk_offset: 3 };
    expect(typesOf(pattern, 3)).toEqual(['full', 'shared', 'full']);
    expect(typesOf({ indexer_types: ['full', 'shared'] }, 2)).toEqual(['full', 'shared']);
  });

  test('have experts by mlp_layer_types, else after the first dense ones', () => {
    const types = { mlp_layer_types: ['sparse', 'dense'] } as const;
    expect([0, 1].map((layer) => hasExperts({ ...deepseek, ...types }, layer))).toEqual([
      true,
      false,
    ]);
    const counted = { ...deepseek, first_k_dense_replace: 1 };
    expect([0, 1].map((layer) => hasExperts(counted, layer))).toEqual([false, true]);
  });

  test('rotate neighbours in the indexer, where DeepSeek rotates halves', () => {
    const sizes = { index_n_heads: 1, index_head_dim: 2, index_topk: 3 };
    const layoutOf = (keys: Partial<OracleConfig>) =>
      indexerConfig({ ...deepseek, ...sizes, ...keys })?.ropeLayout;
    expect(layoutOf({ model_type: 'glm_moe_dsa' })).toBe('interleaved');
    expect(layoutOf({ model_type: 'deepseek_v32' })).toBe('half');
    expect(layoutOf({ model_type: 'deepseek_v32', indexer_rope_interleave: true })).toBe(
      'interleaved',
    );
  });

  test('have a plain rope whose theta stands in rope_parameters', () => {
    const { rope_theta: _, rope_scaling: __, ...others } = deepseek;
    const nested = { ...others, rope_parameters: { rope_theta: 100, rope_type: 'default' } };
    expect(ropeFrequencies(nested)[16]).toBeCloseTo(100 ** -0.5, 12);
    expect(softmaxScale({ ...nested, qk_nope_head_dim: 192 })).toBe(1 / 16);
  });
});

describe('number formats of the oracle', () => {
  test('gives every e4m3 code its own value back', () => {
    for (let code = 0; code < 256; code++) {
      const value = fromE4m3(code);
      expect(toE4m3(value)).toBe(value);
      if (!Number.isNaN(value)) expect(e4m3Code(value)).toBe(code);
    }
    expect(fromE4m3(0x7e)).toBe(448);
    expect(fromE4m3(0x01)).toBe(2 ** -9);
    expect(fromE4m3(0xff)).toBeNaN();
  });

  test('rounds halves to the even e4m3 neighbour and clamps beyond 448', () => {
    for (let code = 0; code < 0x7e; code++) {
      const [low, high] = [fromE4m3(code), fromE4m3(code + 1)];
      expect(toE4m3((low + high) / 2)).toBe(code % 2 === 0 ? low : high);
    }
    expect(toE4m3(1e6)).toBe(448);
    expect(toE4m3(-1e6)).toBe(-448);
  });

  test('rounds bfloat16 halves to even and keeps NaN and infinities', () => {
    expect(toBf16(1 + 2 ** -8)).toBe(1);
    expect(toBf16(1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6);
    expect(toBf16(Number.NaN)).toBeNaN();
    expect(toBf16(Number.NEGATIVE_INFINITY)).toBe(Number.NEGATIVE_INFINITY);
  });

  test('rounds scales up to powers of two, exact powers staying', () => {
    expect(groupScale(Float64Array.of(448), 'ue8m0')).toBe(1);
    expect(groupScale(Float64Array.of(-449), 'ue8m0')).toBe(2);
    expect(groupScale(Float64Array.of(-449), 'f32')).toBe(Math.fround(449 / 448));
    expect(groupScale(Float64Array.of(0), 'f32')).toBe(Math.fround(1e-4 / 448));
  });

  test('scales each group, a last partial one too, by its own largest value', () => {
    const x = Float64Array.of(448, 1, 0.001, 0.0005);
    expect([...throughE4m3(x, 2, 'ue8m0')].slice(0, 2)).toEqual([448, 1]);
    // Three mantissa bits: within one part in sixteen, where the first group's scale would leave 0.
    expect(Math.abs((throughE4m3(x, 3, 'ue8m0')[3] ?? 0) / 0.0005 - 1)).toBeLessThan(1 / 16);
    expect(throughE4m3(x, 4, 'ue8m0')[3]).toBe(0);
  });
});

describe('selection and gate of the oracle', () => {
  test('takes equal scores by ascending index and never takes -inf', () => {
    expect(topIndices([-1, 0, -0, 2, Number.NEGATIVE_INFINITY], 3)).toEqual([3, 1, 2]);
    expect(topIndices([Number.NEGATIVE_INFINITY, -5], 2)).toEqual([1]);
  });

  test('leaves dropped groups out even when all biased scores of the kept one are negative', () => {
    const bias = Float64Array.of(-2, -2.5, -9, -9);
    const chosen = route(Float64Array.of(0, 0, 3, 3), bias, deepseek);
    // Unbiased scores are equal, so each weighs half of the scaling factor.
    expect(chosen).toEqual([
      { expert: 0, weight: 1.25 },
      { expert: 1, weight: 1.25 },
    ]);
  });

  test('is undone by a second Hadamard transform, in Sylvester order', () => {
    expect([...hadamard(Float64Array.of(1, 2, 3, 4))]).toEqual([5, -1, -2, 0]);
    const x = Float64Array.from({ length: 128 }, (_, i) => Math.sin(i));
    hadamard(hadamard(x)).forEach((value, i) => expect(value).toBeCloseTo(x[i] ?? 0, 12));
  });
});
