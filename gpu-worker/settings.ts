/** A worker's settings. */
import { availableParallelism } from 'node:os';
import { basename, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { readSettings } from '../infra/settings.ts';
import type { Env, Settings, SettingsOf } from '../infra/settings.ts';
import { tracingSettings } from '../infra/tracing/tracing-settings.ts';
import { chatFormatNames } from './chat-formats/chat-format.ts';
import { defaultSourceSettings } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';

const count = z.coerce.number().int().min(1);

export const workerSettings = {
  model: {
    env: 'SIFT_MODEL',
    flag: 'model',
    help: 'checkpoint: a directory, a file:// URL or s3://bucket/prefix',
    schema: z.string({ error: 'is missing: give a checkpoint directory' }).min(1),
  },
  modelId: {
    env: 'SIFT_MODEL_ID',
    flag: 'model-id',
    help: 'name that requests use',
    defaultText: 'sift-<directory>',
    schema: z.string().min(1).max(256).optional(),
  },
  chatFormat: {
    env: 'SIFT_CHAT_FORMAT',
    flag: 'chat-format',
    help: `how conversations are written: ${chatFormatNames.join(', ')}`,
    defaultText: "the checkpoint's own",
    schema: z.enum(chatFormatNames).optional(),
  },
  verify: {
    env: 'SIFT_VERIFY',
    flag: 'verify',
    isSwitch: true,
    help:
      'read and verify every byte of the checkpoint before loading it: ' +
      'needs a manifest or s3://',
    schema: z.union([z.boolean(), z.stringbool()]).default(false),
  },
  host: {
    env: 'WORKER_HOST',
    flag: 'host',
    help: 'address to listen on',
    schema: z.string().min(1).default('127.0.0.1'),
  },
  port: {
    env: 'WORKER_PORT',
    flag: 'port',
    help: 'port to listen on, 0 for any free one',
    schema: z.coerce.number().int().min(0).max(65_535).default(8788),
  },
  token: {
    env: 'WORKER_TOKEN',
    help: 'bearer token that callers must send; needed for any address but loopback',
    schema: z.string().min(16, 'must have at least 16 characters').optional(),
  },
  backend: {
    env: 'SIFT_BACKEND',
    flag: 'backend',
    help: 'what computes: cpu, cuda, or auto for cuda where there is such a GPU',
    schema: z.enum(['cpu', 'cuda', 'auto']).default('cpu'),
  },
  numerics: {
    env: 'SIFT_NUMERICS',
    flag: 'numerics',
    help: "f32 (exact) or fp8 (the deployed model's arithmetic, less cache memory)",
    schema: z.enum(['f32', 'fp8']).default('f32'),
  },
  latents: {
    env: 'SIFT_LATENTS',
    flag: 'latents',
    help: 'how fp8 numerics keep latents in the cache: fp8, or bf16 at 1.6 times the bytes',
    defaultText: 'fp8',
    schema: z.enum(['fp8', 'bf16']).optional(),
  },
  attention: {
    env: 'SIFT_ATTENTION',
    flag: 'attention',
    help: 'sparse or dense',
    schema: z.enum(['sparse', 'dense']).default('sparse'),
  },
  threads: {
    env: 'SIFT_THREADS',
    flag: 'threads',
    help: 'threads that compute',
    defaultText: 'all cores',
    schema: count.max(256).default(availableParallelism()),
  },
  tensorParallel: {
    env: 'SIFT_TENSOR_PARALLEL',
    flag: 'tensor-parallel',
    help: 'ranks that share the heads of attention; on the cpu backend, threads',
    schema: count.max(64).default(1),
  },
  dataParallel: {
    env: 'SIFT_DATA_PARALLEL',
    flag: 'data-parallel',
    help: 'groups of such ranks, each with requests and a cache; experts lie over all of them',
    schema: count.max(64).default(1),
  },
  rankSeconds: {
    env: 'SIFT_RANK_SECONDS',
    flag: 'rank-seconds',
    help: 'seconds that a rank may stand still in a step before the worker is ended',
    schema: z.coerce.number().min(0.1).max(600).default(4),
  },
  textThreads: {
    env: 'SIFT_TEXT_THREADS',
    flag: 'text-threads',
    help: 'threads that read requests: JSON, templates, tokens, schemas',
    schema: count.max(64).default(2),
  },
  textSeconds: {
    env: 'SIFT_TEXT_SECONDS',
    flag: 'text-seconds',
    help: 'seconds that reading one request may take before it is refused',
    schema: z.coerce.number().min(0.1).max(600).default(10),
  },
  cacheTokens: {
    env: 'SIFT_CACHE_TOKENS',
    flag: 'cache-tokens',
    help: 'tokens that the KV cache holds; less where memory is short',
    defaultText: '131072, on a GPU all that fit',
    schema: count.optional(),
  },
  stepTokens: {
    env: 'SIFT_STEP_TOKENS',
    flag: 'step-tokens',
    help: 'tokens computed per step, prefill and decode together',
    schema: count.max(65_536).default(512),
  },
  mixedTokens: {
    env: 'SIFT_MIXED_TOKENS',
    flag: 'mixed-tokens',
    help: 'tokens of a step that also decodes, so that running answers wait less for prompts',
    defaultText: 'sequences + 32, on a GPU step-tokens',
    schema: count.max(65_536).optional(),
  },
  sequences: {
    env: 'SIFT_SEQUENCES',
    flag: 'sequences',
    help: 'sequences computed side by side',
    schema: count.max(4096).default(32),
  },
  waiting: {
    env: 'SIFT_WAITING',
    flag: 'waiting',
    help: 'sequences that may wait before callers get 429',
    schema: count.default(1024),
  },
  data: {
    env: 'SIFT_DATA',
    flag: 'data',
    help: 'directory of the usage journal',
    schema: z.string().min(1).default('./data/worker'),
  },
  diskFreePercent: {
    env: 'SIFT_DISK_FREE_PERCENT',
    flag: 'disk-free-percent',
    help: 'the log and /health warn when less of the disk of --data is left',
    schema: z.coerce.number().min(0).max(100).default(5),
  },
  weightsCache: {
    env: 'SIFT_WEIGHTS_CACHE',
    flag: 'weights-cache',
    help: 'directory of weights from s3://, which workers may share',
    schema: z.string().min(1).default(defaultSourceSettings.cacheDirectory),
  },
  weightsCacheBytes: {
    env: 'SIFT_WEIGHTS_CACHE_BYTES',
    flag: 'weights-cache-bytes',
    help: 'bytes that --weights-cache may take; the least recently used weights go first',
    defaultText: '2^40',
    schema: count.default(defaultSourceSettings.cacheBytesMax),
  },
  s3Connections: {
    env: 'SIFT_S3_CONNECTIONS',
    flag: 's3-connections',
    help: 'parts of 8 to 16 MiB fetched side by side',
    schema: count.max(256).default(defaultSourceSettings.connections),
  },
  s3PathStyle: {
    env: 'SIFT_S3_PATH_STYLE',
    flag: 's3-path-style',
    help: 'true or false: the bucket stands in the path, not in the host name',
    defaultText: 'true where AWS_ENDPOINT_URL is set',
    schema: z.stringbool().optional(),
  },
  bodyBytes: {
    env: 'SIFT_BODY_BYTES',
    flag: 'body-bytes',
    help: 'largest request body',
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
    help: 'where the edge reaches this worker',
    defaultText: 'the address it listens on',
    schema: z.url({ protocol: /^https?$/ }).optional(),
  },
  logLevel: {
    env: 'SIFT_LOG_LEVEL',
    flag: 'log-level',
    help: 'debug, info, warn, error or silent',
    schema: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  },
  ...tracingSettings,
} satisfies Settings;

export type WorkerSettings = SettingsOf<typeof workerSettings> & { readonly modelId: string };

/** @throws UserError that names the flag or the variable at fault. */
export function readWorkerSettings(
  flags: Readonly<Record<string, unknown>>,
  env: Env,
): WorkerSettings {
  const read = readSettings(workerSettings, { flags, env });
  return { ...read, modelId: read.modelId ?? `sift-${directoryName(read.model)}` };
}

export function sourceSettings(worker: WorkerSettings): SourceSettings {
  return {
    cacheDirectory: worker.weightsCache,
    cacheBytesMax: worker.weightsCacheBytes,
    connections: worker.s3Connections,
    pathStyle: worker.s3PathStyle ?? null,
  };
}

function directoryName(model: string): string {
  return basename(model.startsWith('file:') ? fileURLToPath(model) : resolve(model));
}
