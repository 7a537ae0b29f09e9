/** Preloaded into a worker (`node --import`): a kernel writes where nothing is, in mid-answer. */
import { CudaSampling } from '../../../gpu-worker/backend/cuda/ops/sampling.ts';

/** Tokens that are drawn before the fault. */
export const tokensBeforeFault = 5;

const { sample } = CudaSampling.prototype;
let calls = 0;
CudaSampling.prototype.sample = function sampleUntilFault(logits, draws) {
  const { device } = this.context;
  // The warm-up draws more than a token at a time, or from a model without weights.
  if (draws[0]?.temperature === 0 && calls++ >= tokensBeforeFault) {
    const kernel = device.kernel('random', 'random_values');
    device.launch(
      kernel,
      { grid: [1, 1, 1], threads: 256 },
      {
        out: 16,
        count: 256,
        seed: 1,
        scale: 1,
        dtype: 0,
      },
    );
  }
  return sample.call(this, logits, draws);
};
