/** `npm run score`: what a checkpoint says of a token sequence, as one JSON object on stdout. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { openCpuBackend } from './backend/cpu/cpu-backend.ts';
import { score, scoreBlocks } from './model/score.ts';
import { openModel } from './open-model.ts';
import { createProgress } from './progress.ts';

const usage = `usage: npm run --silent score -- --model <dir> --ids <json file>
  --positions 0,5        positions whose logits and selected tokens are printed
  --greedy 24            tokens of greedy continuation (default 0)
  --backend cpu|cuda     what computes (default cpu)
  --numerics f32|fp8     exact, or the deployed model's arithmetic (default f32)
  --latents fp8|bf16     how fp8 numerics keep latents in the cache (default fp8)
  --attention sparse|dense
  --absorb always|decode|never
                         weight absorption, or keys and values expanded: by all rows, or
                         by many rows of a sequence (default always)
  --chunk 512            tokens per step; the scores do not depend on it
  --threads 2            threads that compute (default: all cores)`;

/** What a user can mend: bad arguments, bad files. Its message is all that is printed. */
class UsageError extends Error {
  override name = 'UsageError';
}

const count = z.coerce.number().int().min(1);

const optionsSchema = z.strictObject({
  model: z.string({ error: '--model is missing' }),
  ids: z.string({ error: '--ids is missing' }),
  positions: z
    .string()
    .regex(/^\d+(,\d+)*$/, 'must be numbers joined by commas')
    .transform((text) => text.split(',').map(Number))
    .default([]),
  greedy: z.coerce.number().int().min(0).default(0),
  backend: z.enum(['cpu', 'cuda']).default('cpu'),
  numerics: z.enum(['f32', 'fp8']).default('f32'),
  latents: z.enum(['fp8', 'bf16']).optional(),
  attention: z.enum(['sparse', 'dense']).default('sparse'),
  absorb: z.enum(['always', 'decode', 'never']).default('always'),
  chunk: count.max(8192).default(512),
  threads: count.default(availableParallelism()),
});

const idsSchema = z.array(z.int().min(0)).min(1, 'holds no tokens');

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const ids = readIds(options.ids);
  const outside = options.positions.find((position) => position >= ids.length);
  if (outside !== undefined) {
    throw new UsageError(`--positions: ${outside} is past the last token, ${ids.length - 1}`);
  }
  const loading = createProgress('loading', 'bytes');
  const { model, backend, config } = await openModel({
    location: options.model,
    numerics: options.numerics,
    latents: options.latents,
    attention: options.attention,
    absorb: options.absorb,
    limits: { rowsMax: options.chunk, logitRowsMax: Math.min(options.chunk, 64) },
    async openBackend(numerics, { rowsMax }) {
      if (options.backend === 'cpu') {
        return openCpuBackend({ numerics, rowsMax, threads: options.threads });
      }
      const { openCudaBackend } = await import('./backend/cuda/cuda-backend.ts');
      return openCudaBackend({ numerics, rowsMax });
    },
    chooseBlocks: () => scoreBlocks(ids.length, options.greedy),
    onProgress: loading.update,
  });
  loading.stop();
  for (const warning of config.warnings) console.error(`warning: ${warning}`);
  try {
    const total = ids.length + options.greedy;
    if (total > config.contextLength) {
      throw new UsageError(
        `${ids.length} tokens and ${options.greedy} more do not fit the model's context of ${config.contextLength}`,
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
    await backend.close();
  }
}

function readOptions(args: string[]): z.infer<typeof optionsSchema> {
  const [command, ...rest] = args;
  if (command !== 'score') throw new UsageError(usage);
  let values: Record<string, string | undefined>;
  try {
    const string = { type: 'string' } as const;
    const names = Object.keys(optionsSchema.shape);
    ({ values } = parseArgs({
      args: rest,
      options: Object.fromEntries(names.map((name) => [name, string])),
    }));
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : error}\n${usage}`);
  }
  const parsed = optionsSchema.safeParse(values);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const name = issue?.path[0];
  const missing = name !== undefined && values[String(name)] === undefined;
  throw new UsageError(`${missing ? '' : `--${String(name)} `}${issue?.message}\n${usage}`);
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

try {
  await main();
} catch (error) {
  const expected = ['UsageError', 'ConfigError', 'CheckpointError', 'CudaMissing'];
  console.error(error instanceof Error && expected.includes(error.name) ? error.message : error);
  process.exitCode = 1;
}
