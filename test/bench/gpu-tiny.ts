import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { blockTokens } from '../../gpu-worker/backend/batch.ts';
import { openCpuBackend } from '../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CudaBackend, openCudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import { openModel } from '../../gpu-worker/open-model.ts';
import { median, recordResult } from './results.ts';

/** The tiny model end to end: prefill in chunks, then one token after another. */
export async function tinyModel(): Promise<void> {
  const location = fileURLToPath(new URL('../../gpu-worker/models/tiny/', import.meta.url));
  const [prompt, generated, chunk] = [4096, 256, 512];
  for (const kind of ['cuda', 'cpu'] as const) {
    for (const numerics of ['f32', 'fp8'] as const) {
      const { model, backend } = await openModel({
        location,
        compute: { numerics, attention: 'sparse' },
        limits: { rowsMax: chunk, logitRowsMax: 1 },
        openBackend: (chosen) =>
          kind === 'cuda'
            ? openCudaBackend({ numerics: chosen, rowsMax: chunk })
            : openCpuBackend({ numerics: chosen, rowsMax: chunk }),
        blocks: 80,
      });
      const step = (start: number, rows: number) => {
        const positions = Int32Array.from({ length: rows }, (_, r) => start + r);
        const blocks = Math.ceil((start + rows) / blockTokens);
        model.forward({
          tokens: positions.map((position) => (position * 7919) % 4093),
          positions,
          slots: positions,
          sequences: new Int32Array(rows),
          blockTables: [Int32Array.from({ length: blocks }, (_, b) => b)],
        });
        model.logits(Int32Array.of(rows - 1));
      };
      const seconds = (run: () => void) => {
        const start = performance.now();
        run();
        return (performance.now() - start) / 1000;
      };
      const prefill = () => {
        for (let start = 0; start < prompt; start += chunk) step(start, chunk);
      };
      prefill();
      const prefillSeconds = median([1, 2, 3].map(() => seconds(prefill)));
      const decode = () => {
        for (let i = 0; i < generated; i++) step(prompt + i, 1);
      };
      decode();
      const decodeSeconds = median([1, 2, 3].map(() => seconds(decode)));
      const figures = {
        prefillTokensPerSecond: prompt / prefillSeconds,
        decodeTokensPerSecond: generated / decodeSeconds,
      };
      const shapes = { kind, numerics, prompt, generated, chunk, cores: availableParallelism() };
      console.log('gpu-tiny', JSON.stringify(shapes), JSON.stringify(figures));
      const launches = backend instanceof CudaBackend ? backend.context.device.queue.counts : null;
      recordResult({
        benchmark: 'gpu-tiny',
        shapes,
        figures: launches === null ? figures : { ...figures, ...launches },
      });
      await backend.close();
    }
  }
}
