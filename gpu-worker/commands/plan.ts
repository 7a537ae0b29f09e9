/** `sift plan`: how a model would lie on a machine's GPUs, from the shapes of its tensors alone. */
import { z } from 'zod';
import type { CommandModule } from '../../infra/program.ts';
import { environment } from '../../infra/settings.ts';
import { UsageError } from '../../infra/user-error.ts';
import { planCudaBackend } from '../backend/cuda/cuda-backend.ts';
import { chooseNumerics } from '../model/mla-moe/numerics.ts';
import { readShapes } from '../plan/checkpoint-shapes.ts';
import { formatPlan } from '../plan/format-plan.ts';
import { planMachine } from '../plan/plan.ts';
import { readWorkerSettings, sourceSettings } from '../settings.ts';
import { openSource } from '../weights/open-source.ts';

/** An H200 copies its memory at this rate (`gpu-copy` in test/bench/results.jsonl). */
export const h200CopyBytesPerSecond = 4.26e12;
/** NVIDIA's data sheet: an H200's fp8 tensor cores on dense matrices. */
const h200Fp8OperationsPerSecond = 1.979e15;

const rate = (what: string) =>
  z.coerce
    .number({ error: `is no number of ${what}` })
    .min(1e6, `is no number of ${what}: at least 1e6`)
    .max(1e18, `is no number of ${what}: at most 1e18`);
const count = z.coerce
  .number({ error: 'is no whole number' })
  .int({ error: 'is no whole number' })
  .min(1, 'must be at least 1');

const optionsSchema = z.strictObject({
  model: z.string({ error: 'is missing' }).min(1, 'is empty'),
  gpus: z
    .enum(['1', '2', '4', '8'], { error: 'must be 1, 2, 4 or 8' })
    .transform(Number)
    .default(8),
  gpuBytes: rate('bytes').min(2e9, 'is less than a worker starts with: 2e9').default(141e9),
  hbm: rate('bytes a second').default(h200CopyBytesPerSecond),
  flops: rate('operations a second').default(h200Fp8OperationsPerSecond),
  numerics: z.enum(['f32', 'fp8'], { error: 'must be f32 or fp8' }).default('fp8'),
  latents: z.enum(['fp8', 'bf16'], { error: 'must be fp8 or bf16' }).optional(),
  stepTokens: count.max(65_536, 'must be at most 65536').default(512),
  sequences: count.max(4096, 'must be at most 4096').default(32),
  json: z.literal(true).optional(),
});

type Options = z.infer<typeof optionsSchema>;

export const configure: CommandModule['configure'] = (program) => {
  program
    .option(
      '--model <location>',
      'checkpoint: a directory or s3://bucket/prefix; its config.json is enough',
    )
    .option('--gpus <count>', 'GPUs of the machine: 1, 2, 4 or 8 (default 8)')
    .option('--gpu-bytes <bytes>', 'memory that each of them has free (default 141e9)')
    .option('--hbm <bytes>', "bytes a second of a GPU's memory (default 4.26e12, an H200's copies)")
    .option('--flops <count>', "operations a second (default 1.979e15, an H200's in fp8)")
    .option('--numerics <numerics>', 'f32 or fp8 (default fp8)')
    .option('--latents <latents>', 'how fp8 numerics keep latents: fp8 or bf16 (default fp8)')
    .option('--step-tokens <count>', "a worker's --step-tokens (default 512)")
    .option('--sequences <count>', "a worker's --sequences (default 32)")
    .option('--json', 'print the plan as one JSON object')
    .action((flags) => printPlan(readOptions(flags)));
};

async function printPlan(options: Options): Promise<void> {
  const { gpus, gpuBytes, stepTokens, sequences } = options;
  const settings = sourceSettings(readWorkerSettings({ model: options.model }, environment()));
  await using source = await openSource(options.model, settings);
  // Every header in a store would cost a part of 8 MiB.
  const shapes = await readShapes(source, { readsHeaders: !options.model.startsWith('s3://') });
  const numerics = chooseNumerics(options.numerics, shapes.config, options.latents);
  const plan = planMachine(shapes, {
    gpus,
    numerics,
    hbmBytesPerSecond: options.hbm,
    operationsPerSecond: options.flops,
    limits: { rowsMax: stepTokens, logitRowsMax: Math.max(sequences, 64) },
    openBackend: () => planCudaBackend({ numerics, rowsMax: stepTokens, freeBytes: gpuBytes }),
  });
  if (options.json === true) {
    const { config, basis, bytes } = shapes;
    const { modelType, layers, mtpLayers, contextLength } = config;
    const model = { modelType, layers, mtpLayers, contextLength, bytes, basis };
    process.stdout.write(`${JSON.stringify({ model, options, ...plan })}\n`);
    return;
  }
  const heading = { gpus, gpuBytes, numerics: options.numerics, stepTokens };
  process.stdout.write(`${formatPlan(shapes, plan, heading)}\n`);
}

/** @param flags as the command line gives them. */
function readOptions(flags: Readonly<Record<string, unknown>>): Options {
  const parsed = optionsSchema.safeParse(flags);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const name = String(issue?.path[0]).replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UsageError(`--${name} ${issue?.message}`);
}
