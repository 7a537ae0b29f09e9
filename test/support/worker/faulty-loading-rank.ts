/** Entry module of ranks of which the third runs out of memory while it loads. */
import { workerData } from 'node:worker_threads';
import { CpuWeights } from '../../../gpu-worker/backend/cpu/weights.ts';

const { matrix } = CpuWeights.prototype;
CpuWeights.prototype.matrix = function matrixUntilFull(source) {
  // The test starts ranks of the worker's own kind on this module.
  const { rank } = workerData as { rank: number };
  if (rank === 2) throw new Error('out of memory for a tensor');
  return matrix.call(this, source);
};
await import('../../../gpu-worker/rank-entry.ts');
