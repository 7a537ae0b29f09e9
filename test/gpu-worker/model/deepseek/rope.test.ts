import { describe, expect, test } from 'vitest';
import { buildRopeTable } from '../../../../gpu-worker/model/mla-moe/rope.ts';

const yarn = { factor: 40, originalPositions: 4096, betaFast: 32, betaSlow: 1, mscale: 1 };

describe('the rope table', () => {
  test('holds cos and sin of position times frequency, unscaled', () => {
    const table = buildRopeTable({ theta: 10000, yarn }, { dim: 64, positions: 20000 });
    const angles = [
      { pair: 0, position: 1, frequency: 1 },
      { pair: 15, position: 777, frequency: 0.00833451 },
      { pair: 31, position: 19999, frequency: 3.3338e-6 },
    ];
    for (const { pair, position, frequency } of angles) {
      expect(table.cos[position * 32 + pair]).toBeCloseTo(Math.cos(position * frequency), 4);
      expect(table.sin[position * 32 + pair]).toBeCloseTo(Math.sin(position * frequency), 4);
    }
  });

  // Angles reach 65,535 radians, where a float32 has steps of 0.008: they have to be made in
  // float64.
  test('is exact to float32 at the end of a long context', () => {
    const table = buildRopeTable({ theta: 1e6, yarn: null }, { dim: 16, positions: 65536 });
    const angle = 65535 * 1e6 ** (-2 / 16);
    expect(table.cos[65535 * 8 + 1]).toBe(Math.fround(Math.cos(angle)));
    expect(table.sin[65535 * 8 + 1]).toBe(Math.fround(Math.sin(angle)));
    expect(table.dim).toBe(16);
  });
});
