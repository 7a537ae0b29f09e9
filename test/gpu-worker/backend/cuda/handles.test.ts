import { expect, test } from 'vitest';
import {
  CudaTensor,
  dtypeCode,
  outputTensor,
} from '../../../../gpu-worker/backend/cuda/handles.ts';

function tensor(place: { quantized: boolean } = { quantized: true }): CudaTensor {
  const form = { codes: 4096, rows: 8, codeStride: 128, scales: 8192, scaleRow: 1, scaleGroup: 8 };
  return new CudaTensor({
    rows: 8,
    columns: 128,
    at: 256,
    stride: 128,
    precision: 'activation',
    format: dtypeCode.BF16,
    writes: { count: 0 },
    quantized: place.quantized ? form : null,
  });
}

test('a quantised form counts for the rows and the step that it was made for', () => {
  const x = tensor();
  expect(x.isQuantized(1, 0)).toBe(false);
  x.markQuantized(5, 3);
  expect(x.isQuantized(5, 3)).toBe(true);
  expect(x.isQuantized(2, 3)).toBe(true);
  expect(x.isQuantized(6, 3)).toBe(false);
});

test('a quantised form counts no more in the next step, whose ops may be run without being called', () => {
  const x = tensor();
  x.markQuantized(5, 3);
  expect(x.isQuantized(5, 4)).toBe(false);
});

test('a quantised form counts no more once an op has written the tensor or a view of it', () => {
  const x = tensor();
  x.markQuantized(5, 3);
  outputTensor(x, 1, 128);
  expect(x.isQuantized(5, 3)).toBe(false);
  x.markQuantized(5, 3);
  const view = new CudaTensor({ ...x, columns: 64, at: x.at + 128, quantized: null });
  outputTensor(view, 1, 64);
  expect(x.isQuantized(5, 3)).toBe(false);
});

test('a tensor without a second form is never quantised', () => {
  const x = tensor({ quantized: false });
  x.markQuantized(8, 1);
  expect(x.isQuantized(1, 1)).toBe(false);
});
