import { dtypeCode } from '../../gpu-worker/backend/cuda/handles.ts';
import { ceilings, measure, open, randomize, record } from './gpu-harness.ts';
import { librarySquare } from './gpu-products.ts';

const side = 8192;

/**
 * Measures the ceilings that shares refer to: a copy on the device, and a library's products of
 * 8,192^3.
 */
export async function measureCeilings(): Promise<void> {
  await copyRate();
  for (const dtype of ['BF16', 'F8_E4M3'] as const) await matrixRate(dtype);
}

/** Device to device, bytes read and bytes written. */
async function copyRate(): Promise<void> {
  const backend = await open(64);
  const { device } = backend.context;
  const bytes = 4 * 2 ** 30;
  const [from, to] = [device.allocate(bytes, 'cache', 'a'), device.allocate(bytes, 'cache', 'b')];
  randomize(backend, { at: from, count: bytes / 4, dtype: dtypeCode.F32 }, 1);
  const ms = measure(backend, () =>
    device.driver.call('MemcpyDtoDAsync_v2', [to, from, bytes, device.stream]),
  );
  ceilings.copyGbPerSecond = (2 * bytes) / ms / 1e6;
  record(backend, 'gpu-copy', { bytes }, { ms, gbPerSecond: ceilings.copyGbPerSecond });
  await backend.close();
}

async function matrixRate(dtype: 'BF16' | 'F8_E4M3'): Promise<void> {
  const backend = await open(side);
  const ms = librarySquare(backend, dtype, side);
  const teraflops = (2 * side ** 3) / ms / 1e9;
  ceilings[dtype === 'BF16' ? 'bf16Teraflops' : 'fp8Teraflops'] = teraflops;
  record(backend, 'gpu-matrix-rate', { library: 'cuBLASLt', dtype, side }, { ms, teraflops });
  await backend.close();
}
