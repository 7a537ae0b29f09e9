/**
 * A worker whose device faults in the middle of an answer, as a process, its clients and its edge.
 */
import { expect, test } from 'vitest';
import { CudaError } from '../../gpu-worker/backend/cuda/runtime/driver.ts';
import { tokensBeforeFault } from '../support/gpu/faulty-device.ts';
import { observeFault } from '../support/edge/faulty-worker.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const reason =
  "cuStreamSynchronize failed with 700 (CUDA_ERROR_ILLEGAL_ADDRESS) for a step's kernels; " +
  'with SIFT_CUDA_SYNC=1 the error names the kernel';

test('a device fault ends answers with an error, takes the worker out of service, and ends it', async () => {
  const { events, health, nextStatus, usage, exitCode, states } = await observeFault({
    preload: './test/support/gpu/faulty-device.ts',
    flags: ['--threads', '1'],
    data: temporaryDirectory(),
  });
  const delivered = events.slice(0, -1) as { usage: { completion_tokens: number } }[];
  expect(events.at(-1)).toMatchObject({ error: { code: 'internal_error', message: reason } });
  expect(delivered.at(-1)?.usage.completion_tokens).toBe(tokensBeforeFault);
  expect(usage).toMatchObject({ status: 'failed', usage: delivered.at(-1)?.usage ?? {} });

  const why = `the engine failed: ${reason}`;
  expect(health).toMatchObject({ status: 503, body: { status: 'failed', reason: why } });
  expect(nextStatus).toBe(503);
  expect([states[0], states.at(-1)]).toEqual(['ready', 'failed']);
  // The supervisor's turn: it starts a new worker.
  expect(exitCode).toBe(70);
});

test('an error of a call names the call, the code and what it was for; a hint only where it helps', () => {
  const of = (code: number, doing: string) => new CudaError('cuX', code, 'WHY', doing).message;
  expect(of(700, 'for kernel norm_rows')).toBe('cuX failed with 700 (WHY) for kernel norm_rows');
  expect(of(719, '')).toBe(
    'cuX failed with 719 (WHY); with SIFT_CUDA_SYNC=1 the error names the kernel',
  );
  expect(of(2, 'for a tensor')).toBe('cuX failed with 2 (WHY) for a tensor');
});
