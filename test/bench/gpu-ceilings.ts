import { dtypeCode } from '../../gpu-worker/backend/cuda/handles.ts';
import { ceilings, measure, open, randomize, record } from './gpu-harness.ts';

/** Device to device, bytes read and bytes written. */
export async function copyRate(): Promise<void> {
  const backend = await open(64);
  const { device } = backend.machine;
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
