import { describe, expect, test } from 'vitest';
import {
  expandedRowsMin,
  limitMaskedTokens,
  maskedTokensMax,
  planAttention,
} from '../../../gpu-worker/backend/attention-plan.ts';

/** A batch of the last `rows` rows of sequences of `tokens` tokens. */
function batchOf(...parts: readonly { tokens: number; rows: number }[]) {
  const positions = parts.flatMap(({ tokens, rows }) =>
    Array.from({ length: rows }, (_, r) => tokens - rows + r),
  );
  const sequences = parts.flatMap(({ rows }, i) => Array.from({ length: rows }, () => i));
  return { positions: Int32Array.from(positions), sequences: Int32Array.from(sequences) };
}

const many = expandedRowsMin;
const mixed = batchOf({ tokens: 900, rows: 1 }, { tokens: 500, rows: many });

test('`always` absorbs all rows, and `never` none', () => {
  const options = { topK: 64 };
  expect(planAttention(mixed, { ...options, absorption: 'always' })).toEqual({
    absorbedRows: many + 1,
    masked: false,
  });
  expect(planAttention(mixed, { ...options, absorption: 'never' })).toEqual({
    absorbedRows: 0,
    masked: true,
  });
  expect(planAttention(mixed, { topK: null, absorption: 'never' }).masked).toBe(false);
});

describe('`decode`', () => {
  const decode = { absorption: 'decode', topK: 512 } as const;

  test('expands the last sequences, if they have many rows, from the first of them on', () => {
    const twice = batchOf(
      { tokens: 9, rows: 1 },
      { tokens: many, rows: many },
      { tokens: 300, rows: many },
    );
    expect(planAttention(twice, decode)).toEqual({ absorbedRows: 1, masked: false });
    expect(planAttention(mixed, decode)).toEqual({ absorbedRows: 1, masked: false });
  });

  test('absorbs all rows before a sequence of few rows', () => {
    const last = batchOf({ tokens: many, rows: many }, { tokens: 40, rows: many - 1 });
    expect(planAttention(last, decode).absorbedRows).toBe(2 * many - 1);
  });

  test('masks where rows select fewer tokens than they see, up to the limit and no further', () => {
    const topK = 512;
    const limit = limitMaskedTokens({ rows: 256, topK });
    const at = (tokens: number) => planAttention(batchOf({ tokens, rows: 256 }), decode);
    expect(limit).toBeGreaterThan(topK);
    expect(at(topK)).toEqual({ absorbedRows: 0, masked: false });
    expect(at(topK + 1)).toEqual({ absorbedRows: 0, masked: true });
    expect(at(limit)).toEqual({ absorbedRows: 0, masked: true });
    expect(at(limit + 1)).toEqual({ absorbedRows: 256, masked: false });
  });

  test('expands any number of tokens where rows attend to all that they see', () => {
    const long = batchOf({ tokens: 4 * maskedTokensMax, rows: many });
    expect(planAttention(long, { absorption: 'decode', topK: null })).toEqual({
      absorbedRows: 0,
      masked: false,
    });
  });
});
