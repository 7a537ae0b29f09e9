/**
 * Preloaded into a worker (`node --import`): its backend meets a device fault in the middle of an
 * answer, as the CUDA backend reports one.
 */
import { CpuSampling } from '../../../gpu-worker/backend/cpu/sampling.ts';
import { CudaError } from '../../../gpu-worker/backend/cuda/runtime/driver.ts';

/** Tokens that are drawn before the fault. */
export const tokensBeforeFault = 5;

const { sample } = CpuSampling.prototype;
let calls = 0;
CpuSampling.prototype.sample = function sampleUntilFault(logits, draws) {
  if (calls++ < tokensBeforeFault) return sample.call(this, logits, draws);
  throw new CudaError(
    'cuStreamSynchronize',
    700,
    'CUDA_ERROR_ILLEGAL_ADDRESS',
    "for a step's kernels",
  );
};
