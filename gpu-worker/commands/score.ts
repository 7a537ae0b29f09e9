/** `sift score`: what a checkpoint says of a token sequence, as one JSON object on stdout. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { z } from 'zod';
import type { CommandModule } from '../../infra/program.ts';
import { UsageError } from '../../infra/user-error.ts';
import { at } from '../at.ts';
import { openCpuBackend } from '../backend/cpu/cpu-backend.ts';
import { openCpuRanks } from '../cpu-ranks.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import type { Model } from '../model/model.ts';
import { score, scoreBlocks } from '../model/score.ts';
import { openModel } from '../open-model.ts';
import { loadRanks } from '../open-ranks.ts';
import { createProgress } from '../progress.ts';

const wholeNumber = z.coerce
  .number({ error: 'is no whole number' })
  .int({ error: 'is no whole number' });
const count = wholeNumber.min(1, 'must be at least 1');
const oneOf = <const Names extends readonly [string, string, ...string[]]>(names: Names) =>
  z.enum(names, { error: `must be ${names.slice(0, -1).join(', ')} or ${names.at(-1)}` });

/** Threads of a machine that is worth it. */
const ranksMax = 64;

const optionsSchema = z.strictObject({
  model: z.string({ error: 'is missing' }),
  ids: z.string({ error: 'is missing' }),
  positions: z
    .string()
    .regex(/^\d+(,\d+)*$/, 'must be numbers joined by commas')
    .transform((text) => text.split(',').map(Number))
    .default([]),
  greedy: wholeNumber.min(0, 'must be at least 0').default(0),
  backend: oneOf(['cpu', 'cuda']).default('cpu'),
  numerics: oneOf(['f32', 'fp8']).default('f32'),
  latents: oneOf(['fp8', 'bf16']).optional(),
  attention: oneOf(['sparse', 'dense']).default('sparse'),
  absorb: oneOf(['always', 'decode', 'never']).default('always'),
  chunk: count.max(8192, 'must be at most 8192').default(512),
  threads: count.default(availableParallelism()),
  tensorParallel: count.max(ranksMax, `must be at most ${ranksMax}`).default(1),
  dataParallel: count.max(ranksMax, `must be at most ${ranksMax}`).default(1),
});

const idsSchema = z.array(z.int().min(0)).min(1, 'holds no tokens');

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--model <location>', 'checkpoint: a directory, a file:// URL or s3://bucket/prefix')
    .option('--ids <file>', 'JSON array of token ids')
    .option('--positions <list>', 'positions whose logits and selected tokens are printed: 0,5')
    .option('--greedy <count>', 'tokens of greedy continuation (default 0)')
    .option('--backend <backend>', 'what computes: cpu or cuda (default cpu)')
    .option('--numerics <numerics>', "f32, exact, or fp8, the deployed model's (default f32)")
    .option('--latents <latents>', 'how fp8 numerics keep latents: fp8 or bf16 (default fp8)')
    .option('--attention <attention>', 'sparse or dense (default sparse)')
    .option('--absorb <when>', 'absorbed attention: always, decode or never (default always)')
    .option('--chunk <count>', 'tokens per step; the scores do not depend on it (default 512)')
    .option('--threads <count>', 'threads that compute (default: all cores)')
    .option('--tensor-parallel <count>', 'ranks that share the heads of attention (default 1)')
    .option('--data-parallel <count>', 'groups of ranks, over which experts lie too (default 1)')
    .action((flags) => printScores(readOptions(flags)));
};

async function printScores(options: Options): Promise<void> {
  const ids = readIds(options.ids);
  const outside = options.positions.find((position) => position >= ids.length);
  if (outside !== undefined) {
    throw new UsageError(`--positions: ${outside} is past the last token, ${ids.length - 1}`);
  }
  const loading = createProgress('loading', 'bytes');
  const { model, config, close } = await open(options, {
    blocks: scoreBlocks(ids.length, options.greedy),
    onProgress: loading.update,
  });
  loading.stop();
  for (const warning of config.warnings) console.error(`warning: ${warning}`);
  try {
    const total = ids.length + options.greedy;
    if (total > config.contextLength) {
      throw new UsageError(
        `${ids.length} tokens and ${options.greedy} more do not fit the model's context of ` +
          `${config.contextLength}`,
      );
    }
    const unknown = ids.find((id) => id >= config.vocabSize);
    if (unknown !== undefined) {
      throw new UsageError(`--ids: ${unknown} is outside the vocabulary of ${config.vocabSize}`);
    }
    const scoring = createProgress('scoring', 'tokens');
    const scores = score(model, ids, {
      positions: options.positions,
      greedyTokens: options.greedy,
      onProgress: scoring.update,
    });
    scoring.stop();
    process.stdout.write(`${JSON.stringify(scores)}\n`);
  } finally {
    await close();
  }
}

interface Opened {
  readonly model: Model;
  readonly config: ModelConfig;
  close(): Promise<void>;
}

type Options = z.infer<typeof optionsSchema>;

async function open(
  options: Options,
  given: { blocks: number; onProgress(done: number, total: number): void },
): Promise<Opened> {
  const { absorb, threads, chunk, tensorParallel, dataParallel } = options;
  const load = {
    location: options.model,
    compute: options,
    limits: { rowsMax: chunk, logitRowsMax: Math.min(chunk, 64) },
    ...given,
  };
  if (tensorParallel * dataParallel > 1) {
    if (options.backend === 'cuda') {
      throw new UsageError('--tensor-parallel, --data-parallel: the cuda backend has one rank yet');
    }
    const layout = { tensorParallel, dataParallel };
    const openRanks = () => openCpuRanks(layout, { threads, absorb });
    const loaded = await loadRanks({ ...load, ...layout, openRanks });
    const { groups } = await loaded.withCache(given.blocks);
    return { model: at(groups, 0), config: loaded.config, close: loaded.close };
  }
  const { model, backend, config } = await openModel({
    ...load,
    async openBackend(numerics, { rowsMax }) {
      if (options.backend === 'cpu') return openCpuBackend({ numerics, rowsMax, absorb, threads });
      const { openCudaBackend } = await import('../backend/cuda/cuda-backend.ts');
      return openCudaBackend({ numerics, rowsMax, absorb });
    },
  });
  return { model, config, close: () => backend.close() };
}

/** @param flags as the command line gives them. */
function readOptions(flags: Readonly<Record<string, unknown>>): z.infer<typeof optionsSchema> {
  const parsed = optionsSchema.safeParse(flags);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const name = String(issue?.path[0]).replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UsageError(`--${name} ${issue?.message}`);
}

function readIds(file: string): number[] {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new UsageError(`--ids: ${error instanceof Error ? error.message : error}`);
  }
  const parsed = idsSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue?.path.length ? `element ${issue.path.join('.')}: ` : '';
  throw new UsageError(
    `--ids: ${file} must be a JSON array of token ids: ${where}${issue?.message}`,
  );
}
