/**
 * A worker's settings: command-line flags over environment variables over defaults, checked by one
 * schema. Secrets come from the environment alone, because command lines are visible to all.
 */
import { availableParallelism } from 'node:os';
import { basename, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CommanderError, Option } from '@commander-js/extra-typings';
import type { Command } from '@commander-js/extra-typings';
import { z } from 'zod';
import { createProgram, UsageError } from '../infra/program.ts';
import { defaultSourceSettings } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';

const count = z.coerce.number().int().min(1);

interface Setting {
  readonly env: string;
  /** What `--help` says; null for settings without a flag. */
  readonly flag: string | null;
  readonly help: string;
  /** Its flag needs no value: alone it means true. */
  readonly isSwitch?: boolean;
  readonly schema: z.ZodType;
}

const settings = {
  model: {
    env: 'SIFT_MODEL',
    flag: 'model',
    help: 'checkpoint: a directory, a file:// URL or s3://bucket/prefix',
    schema: z.string({ error: 'is missing: give a checkpoint directory' }).min(1),
  },
  modelId: {
    env: 'SIFT_MODEL_ID',
    flag: 'model-id',
    help: 'name that requests use (default: sift-<directory>)',
    schema: z.string().min(1).max(256).optional(),
  },
  verify: {
    env: 'SIFT_VERIFY',
    flag: 'verify',
    isSwitch: true,
    help: 'read and verify every byte of the checkpoint before loading it: needs a manifest or s3://',
    schema: z.union([z.boolean(), z.stringbool()]).default(false),
  },
  host: {
    env: 'WORKER_HOST',
    flag: 'host',
    help: 'address to listen on (default 127.0.0.1)',
    schema: z.string().min(1).default('127.0.0.1'),
  },
  port: {
    env: 'WORKER_PORT',
    flag: 'port',
    help: 'port to listen on, 0 for any free one (default 8788)',
    schema: z.coerce.number().int().min(0).max(65_535).default(8788),
  },
  token: {
    env: 'WORKER_TOKEN',
    flag: null,
    help: 'bearer token that callers must send; needed for any address but loopback',
    schema: z.string().min(16, 'must have at least 16 characters').optional(),
  },
  backend: {
    env: 'SIFT_BACKEND',
    flag: 'backend',
    help: 'what computes: cpu, cuda, or auto for cuda where there is such a GPU (default cpu)',
    schema: z.enum(['cpu', 'cuda', 'auto']).default('cpu'),
  },
  numerics: {
    env: 'SIFT_NUMERICS',
    flag: 'numerics',
    help: "f32 (exact) or fp8 (the deployed model's arithmetic, less cache memory) (default f32)",
    schema: z.enum(['f32', 'fp8']).default('f32'),
  },
  latents: {
    env: 'SIFT_LATENTS',
    flag: 'latents',
    help: 'how fp8 numerics keep latents in the cache: fp8, or bf16 at 1.6 times the bytes (default fp8)',
    schema: z.enum(['fp8', 'bf16']).optional(),
  },
  attention: {
    env: 'SIFT_ATTENTION',
    flag: 'attention',
    help: 'sparse or dense (default sparse)',
    schema: z.enum(['sparse', 'dense']).default('sparse'),
  },
  threads: {
    env: 'SIFT_THREADS',
    flag: 'threads',
    help: 'threads that compute (default: all cores)',
    schema: count.max(256).default(availableParallelism()),
  },
  textThreads: {
    env: 'SIFT_TEXT_THREADS',
    flag: 'text-threads',
    help: 'threads that read requests: JSON, templates, tokens, schemas (default 2)',
    schema: count.max(64).default(2),
  },
  textSeconds: {
    env: 'SIFT_TEXT_SECONDS',
    flag: 'text-seconds',
    help: 'how long one request may be read before it is refused (default 10)',
    schema: z.coerce.number().min(0.1).max(600).default(10),
  },
  cacheTokens: {
    env: 'SIFT_CACHE_TOKENS',
    flag: 'cache-tokens',
    help: 'tokens that the KV cache holds (default: 131072, on a GPU all that fit; less if short)',
    schema: count.optional(),
  },
  stepTokens: {
    env: 'SIFT_STEP_TOKENS',
    flag: 'step-tokens',
    help: 'tokens computed per step, prefill and decode together (default 512)',
    schema: count.max(65_536).default(512),
  },
  mixedTokens: {
    env: 'SIFT_MIXED_TOKENS',
    flag: 'mixed-tokens',
    help:
      'tokens of a step that also decodes, so that running answers wait less for prompts ' +
      '(default: sequences + 48, on a GPU step-tokens)',
    schema: count.max(65_536).optional(),
  },
  sequences: {
    env: 'SIFT_SEQUENCES',
    flag: 'sequences',
    help: 'sequences computed side by side (default 32)',
    schema: count.max(4096).default(32),
  },
  waiting: {
    env: 'SIFT_WAITING',
    flag: 'waiting',
    help: 'sequences that may wait before callers get 429 (default 1024)',
    schema: count.default(1024),
  },
  data: {
    env: 'SIFT_DATA',
    flag: 'data',
    help: 'directory of the usage journal (default ./data/worker)',
    schema: z.string().min(1).default('./data/worker'),
  },
  diskFreePercent: {
    env: 'SIFT_DISK_FREE_PERCENT',
    flag: 'disk-free-percent',
    help: "the log and /health warn when less of that directory's disk is left (default 5)",
    schema: z.coerce.number().min(0).max(100).default(5),
  },
  weightsCache: {
    env: 'SIFT_WEIGHTS_CACHE',
    flag: 'weights-cache',
    help: 'directory of weights from s3://, which workers may share (default ./data/weights)',
    schema: z.string().min(1).default(defaultSourceSettings.cacheDirectory),
  },
  weightsCacheBytes: {
    env: 'SIFT_WEIGHTS_CACHE_BYTES',
    flag: 'weights-cache-bytes',
    help: 'what that directory may take; the least recently used goes first (default 2^40)',
    schema: count.default(defaultSourceSettings.cacheBytesMax),
  },
  s3Connections: {
    env: 'SIFT_S3_CONNECTIONS',
    flag: 's3-connections',
    help: 'parts of 8 to 16 MiB fetched side by side (default 12)',
    schema: count.max(256).default(defaultSourceSettings.connections),
  },
  s3PathStyle: {
    env: 'SIFT_S3_PATH_STYLE',
    flag: 's3-path-style',
    help: 'true or false: bucket in the path (default: true where AWS_ENDPOINT_URL is set)',
    schema: z.stringbool().optional(),
  },
  bodyBytes: {
    env: 'SIFT_BODY_BYTES',
    flag: 'body-bytes',
    help: 'largest request body (default 8388608)',
    schema: count.default(8 * 2 ** 20),
  },
  edgeUrl: {
    env: 'SIFT_EDGE_URL',
    flag: 'edge',
    help: 'edge to announce this worker to, every 5 s',
    schema: z.url({ protocol: /^https?$/ }).optional(),
  },
  publicUrl: {
    env: 'SIFT_PUBLIC_URL',
    flag: 'public-url',
    help: 'where the edge reaches this worker (default: the address it listens on)',
    schema: z.url({ protocol: /^https?$/ }).optional(),
  },
  logLevel: {
    env: 'SIFT_LOG_LEVEL',
    flag: 'log-level',
    help: 'debug, info, warn, error or silent (default info)',
    schema: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  },
} satisfies Record<string, Setting>;

type SettingName = keyof typeof settings;

export type WorkerSettings = {
  readonly [Name in SettingName]: z.output<(typeof settings)[Name]['schema']>;
} & { readonly modelId: string };

/** Its message is all that the user needs to see. */
export class SettingsError extends UsageError {
  override name = 'SettingsError';
}

/** @throws SettingsError that names the flag or the variable at fault. */
export function readSettings(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): WorkerSettings {
  return settingsOf(readFlags(args), env);
}

/** @param flags as the program of the worker parses them. @throws SettingsError */
export function settingsOf(
  flags: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
): WorkerSettings {
  const read: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries<Setting>(settings)) {
    const fromFlag = setting.flag === null ? undefined : flags[optionOf(setting).attributeName()];
    // An empty variable counts as not set: that is how compose files leave one out.
    const given = fromFlag ?? (env[setting.env] || undefined);
    const parsed = setting.schema.safeParse(given);
    if (!parsed.success) {
      const fromEnv = fromFlag === undefined && given !== undefined;
      const label = setting.flag === null || fromEnv ? setting.env : `--${setting.flag}`;
      throw new SettingsError(`${label}: ${parsed.error.issues[0]?.message}`);
    }
    read[name] = parsed.data;
  }
  // Every setting was parsed by its own schema just above.
  const checked = read as WorkerSettings;
  return { ...checked, modelId: checked.modelId ?? `sift-${directoryName(checked.model)}` };
}

export function sourceSettings(worker: WorkerSettings): SourceSettings {
  return {
    cacheDirectory: worker.weightsCache,
    cacheBytesMax: worker.weightsCacheBytes,
    connections: worker.s3Connections,
    pathStyle: worker.s3PathStyle ?? null,
  };
}

/** Adds a flag for every setting that has one. */
export function addSettings(program: Command): Command {
  for (const setting of Object.values<Setting>(settings)) {
    if (setting.flag !== null) program.addOption(optionOf(setting));
  }
  const variables = Object.values<Setting>(settings).filter(({ flag }) => flag === null);
  const lines = variables.map(({ env, help }) => `  ${env}  ${help}`);
  return program.addHelpText('after', `\nFrom the environment alone:\n${lines.join('\n')}`);
}

function optionOf({ flag, env, help, isSwitch = false }: Setting): Option {
  const value = isSwitch ? '[true|false]' : '<value>';
  return new Option(`--${flag} ${value}`, `${help} [${env}]`);
}

function readFlags(args: readonly string[]): Readonly<Record<string, unknown>> {
  const program = addSettings(createProgram('sift worker', '')).configureOutput({
    writeErr: () => {},
  });
  try {
    return program.parse([...args], { from: 'user' }).opts();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    throw new SettingsError(error.message.replace(/^error: /, ''), { cause: error });
  }
}

function directoryName(model: string): string {
  return basename(model.startsWith('file:') ? fileURLToPath(model) : resolve(model));
}
