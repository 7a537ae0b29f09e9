/** Opens a checkpoint over ranks of the cpu backend, for tests. */
import { openCpuRanks } from '../../../gpu-worker/cpu-ranks.ts';
import type { CpuRanksOptions } from '../../../gpu-worker/cpu-ranks.ts';
import type { Layout } from '../../../gpu-worker/model/mla-moe/shard.ts';
import type { NumericsName } from '../../../gpu-worker/model/mla-moe/numerics.ts';
import { loadRanks } from '../../../gpu-worker/open-ranks.ts';
import type { LoadedRanks } from '../../../gpu-worker/open-ranks.ts';
import type { RankedModel } from '../../../gpu-worker/ranks/ranked-model.ts';
import { at } from '../../../gpu-worker/at.ts';
import type { OpenedModel } from './model-harness.ts';

export interface RankedTest extends Layout, Partial<CpuRanksOptions> {
  readonly numerics?: NumericsName;
  /** The entry module of the ranks; the worker's own unless given. */
  readonly entry?: URL;
  onProgress?(done: number, total: number): void;
}

export interface OpenedRanks extends OpenedModel {
  readonly loaded: LoadedRanks;
  readonly ranked: RankedModel;
}

/** The model of the first group, and all of them in `ranked`. */
export async function openRanksForTest(
  directory: string,
  { tensorParallel, dataParallel, ...options }: RankedTest,
): Promise<OpenedRanks> {
  const layout = { tensorParallel, dataParallel };
  const rowsMax = 256;
  const loaded = await loadRanks({
    ...layout,
    location: directory,
    compute: { numerics: options.numerics ?? 'f32', attention: 'sparse' },
    limits: { rowsMax, logitRowsMax: rowsMax },
    openRanks: () => ({
      ...openCpuRanks(layout, { threads: 1, ...options }),
      ...(options.entry && { entry: options.entry }),
    }),
    ...(options.onProgress && { onProgress: options.onProgress }),
  });
  try {
    const ranked = await loaded.withCache(24);
    const model = at(ranked.groups, 0);
    return { loaded, ranked, model, config: loaded.config, close: loaded.close };
  } catch (error) {
    await loaded.close();
    throw error;
  }
}
