import { CudaMatrix, dtypeCode } from '../../gpu-worker/backend/cuda/handles.ts';
import { ceilings, measure, open, randomize, randomTensor, record } from './gpu-harness.ts';

/** Products at V3.2's shapes, fp8 with block scales and bf16. */
export async function products(): Promise<void> {
  const backend = await open(8192);
  const { device } = backend.machine;
  const shapes = [
    { name: 'q_b', inputs: 1536, outputs: 24576 },
    { name: 'o', inputs: 16384, outputs: 7168 },
    { name: 'up', inputs: 7168, outputs: 18432 },
    { name: 'expert', inputs: 7168, outputs: 2048 },
    { name: 'square', inputs: 8192, outputs: 8192 },
  ];
  for (const dtype of ['F8_E4M3', 'BF16'] as const) {
    for (const { name, inputs, outputs } of shapes) {
      const width = dtype === 'BF16' ? 2 : 1;
      const at = device.allocate(inputs * outputs * width, 'weight', name);
      randomize(backend, { at, count: inputs * outputs, dtype: dtypeCode[dtype] }, 1);
      const blocks = Math.ceil(inputs / 128) * Math.ceil(outputs / 128);
      const scales = dtype === 'BF16' ? 0 : device.allocate(blocks * 4, 'weight', name);
      if (scales !== 0) randomize(backend, { at: scales, count: blocks, dtype: 0 }, 0.01);
      const matrix = new CudaMatrix(
        { name, inputs, outputs },
        { at, dtype: dtypeCode[dtype], scales },
      );
      for (const rows of name === 'square' ? [8192] : [1, 64, 4096]) {
        const x = randomTensor(backend, rows, inputs);
        const out = backend.tensor(rows, outputs);
        const ms = measure(backend, () => backend.linear(out, x, matrix, rows));
        const weightBytes = inputs * outputs * width;
        record(
          backend,
          'gpu-product',
          { name, dtype, rows, inputs, outputs },
          {
            ms,
            teraflops: (2 * rows * inputs * outputs) / ms / 1e9,
            weightGbPerSecond: weightBytes / ms / 1e6,
            weightShareOfCopyRate: weightBytes / ms / 1e6 / ceilings.copyGbPerSecond,
          },
        );
      }
    }
  }
  await backend.close();
}
