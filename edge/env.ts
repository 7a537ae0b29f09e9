/**
 * The edge's settings, from environment variables, by one schema for both runtimes. All names of its own
 * begin with EDGE_; one that is not listed here is refused, because a setting with a slip in its name
 * would silently not be set.
 */
import { z } from 'zod';
import { isHostPattern, refuseWorkerUrl } from './fleet/worker-url.ts';
import { nearestName } from './nearest.ts';
import type { EdgeSettings, StaticWorker } from './services.ts';

/** Its message is all that the operator needs to see. */
export class SettingsError extends Error {
  override name = 'SettingsError';
}

const secret = z.string().min(16, 'must have at least 16 characters');
const secrets = z
  .string()
  .transform((text) => text.split(',').map((each) => each.trim()))
  .pipe(z.array(secret).min(1).max(8));
const count = z.coerce.number().int().min(1);

/** `id=url,id=url` */
const staticWorkers = z.string().transform((text, context) => {
  const workers: { id: string; url: string }[] = [];
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, id, url] = /^([A-Za-z0-9._-]{1,128})=(https?:\/\/\S+?)\/*$/.exec(part) ?? [];
    if (id === undefined || url === undefined || workers.some((each) => each.id === id)) {
      context.addIssue({ code: 'custom', message: `'${part}' is not a new id=url` });
      return z.NEVER;
    }
    workers.push({ id, url });
  }
  return workers;
});

/** `id=token,id=token`; nothing after the = shows the worker no token at all. */
const staticWorkerTokens = z.string().transform((text, context) => {
  const tokens = new Map<string, string>();
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, id, token] = /^([A-Za-z0-9._-]{1,128})=([\x21-\x7e]*)$/.exec(part) ?? [];
    if (id === undefined || token === undefined || tokens.has(id)) {
      // Not in its own words: it may hold a token.
      context.addIssue({ code: 'custom', message: 'expected id=token,id=token, each id once' });
      return z.NEVER;
    }
    tokens.set(id, token);
  }
  return tokens;
});

/** `host,host:port,*.domain` */
const workerHosts = z.string().transform((text, context) => {
  const hosts = text.split(',').map((each) => each.trim().toLowerCase());
  const bad = hosts.find((host) => !isHostPattern(host));
  if (bad === undefined) return hosts;
  context.addIssue({ code: 'custom', message: `'${bad}' is no host, host:port or *.domain` });
  return z.NEVER;
});

/** `id=count,id=count` */
const staticWorkerSlots = z.string().transform((text, context) => {
  const slots = new Map<string, number>();
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, id, number] = /^([A-Za-z0-9._-]{1,128})=([1-9]\d{0,5})$/.exec(part) ?? [];
    if (id === undefined || number === undefined || slots.has(id)) {
      context.addIssue({ code: 'custom', message: `'${part}' is not a new id=count` });
      return z.NEVER;
    }
    slots.set(id, Number(number));
  }
  return slots;
});

const sharedFields = {
  /** Sign API keys: newest first, separated by commas; all verify, the newest signs. */
  EDGE_KEY_SIGNING_SECRETS: secrets.optional(),
  /** Roots the prefix keys: a new one forgets every cached prefix. */
  EDGE_CACHE_SECRET: secret.optional(),
  /** What the edge shows to workers, and workers to the edge. */
  WORKER_TOKEN: secret.optional(),
  /** Opens /admin. */
  EDGE_ADMIN_TOKEN: secret.optional(),
  /** Of the Stripe account that tenants pay into; both or neither. */
  EDGE_STRIPE_SECRET_KEY: z.string().min(1).optional(),
  EDGE_STRIPE_WEBHOOK_SECRET: z.string().min(1).optional(),
  /** Largest request body, in bytes. */
  EDGE_BODY_BYTES: count.max(64 * 2 ** 20).default(8 * 2 ** 20),
  /** A stream that has nothing to say sends a comment this often, in milliseconds. */
  EDGE_KEEP_ALIVE_MS: count.max(60_000).default(5_000),
  /** Of a request that states no maximum, in tokens. */
  EDGE_OUTPUT_TOKENS: count.max(1_000_000).default(4_096),
  /**
   * A request that would wait longer for a worker is refused, in milliseconds, unless it says how long
   * it will wait.
   */
  EDGE_QUEUE_MS: z.coerce.number().int().min(0).max(600_000).default(30_000),
  /** Engines that do not announce themselves (vLLM, SGLang): `id=url,id=url`. */
  EDGE_STATIC_WORKERS: staticWorkers.default([]),
  /** Hosts that workers may have, announced, added or listed here; any where it is not set. */
  EDGE_WORKER_HOSTS: workerHosts.default([]),
  /** What the edge shows to those, in place of WORKER_TOKEN: `id=token,id=token`; `id=` shows nothing. */
  EDGE_STATIC_WORKER_TOKENS: staticWorkerTokens.optional(),
  /** Answers that each of those is given at a time: `id=count,id=count`. */
  EDGE_STATIC_WORKER_SLOTS: staticWorkerSlots.optional(),
  /** Holds older than this, in minutes, are settled from the worker's journal. */
  EDGE_HOLD_MINUTES: count.max(24 * 60).default(10),
  /**
   * An answer under an Idempotency-Key that no client waits for any more is made for so many more
   * minutes; 0 ends it with its last client.
   */
  EDGE_RUN_ON_MINUTES: z.coerce.number().int().min(0).max(60).default(10),
};

const nodeFields = {
  ...sharedFields,
  PORT: z.coerce.number().int().min(0).max(65_535).default(8787),
  /** Address to listen on. */
  EDGE_HOST: z.string().min(1).default('127.0.0.1'),
  /** Directory of the databases and of the secrets that were not given. */
  EDGE_DATA: z.string().min(1).default('./data'),
  /** Tenants whose databases are open at a time. */
  EDGE_OPEN_TENANTS: count.max(100_000).default(256),
  /** The log and /health warn when less than this share of the data's disk is left, in percent. */
  EDGE_DISK_FREE_PERCENT: z.coerce.number().min(0).max(100).default(5),
  /** All request bodies in memory together, in bytes. */
  EDGE_BODIES_BYTES: count.max(64 * 2 ** 30).default(128 * 2 ** 20),
  EDGE_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
};

/** Of the edge on Node. */
export const settingNames: readonly string[] = Object.keys(nodeFields);

type Shared = z.output<z.ZodObject<typeof sharedFields>>;

/** Of either runtime. The secrets are null where they were not given. */
export interface GivenSettings extends Omit<
  EdgeSettings,
  'keySigningSecrets' | 'cacheSecret' | 'workerToken' | 'adminToken'
> {
  readonly keySigningSecrets: readonly string[] | null;
  readonly cacheSecret: string | null;
  readonly workerToken: string | null;
  readonly adminToken: string | null;
  readonly staticWorkers: readonly StaticWorker[];
  /** Patterns of the hosts that workers may have; empty admits all. */
  readonly workerHosts: readonly string[];
  readonly holdMs: number;
  readonly runOnMs: number;
}

export interface NodeSettings extends GivenSettings {
  readonly port: number;
  readonly host: string;
  readonly dataFolder: string;
  readonly openTenantsMax: number;
  readonly diskFreePercentMin: number;
  readonly bodiesBytesMax: number;
  readonly logLevel: z.output<typeof nodeFields.EDGE_LOG_LEVEL>;
}

type Env = Readonly<Record<string, unknown>>;

/** @throws SettingsError that names the variable at fault. */
export function readNodeSettings(env: Env): NodeSettings {
  const read = parse(nodeFields, env);
  if (read.EDGE_BODIES_BYTES < 2 * read.EDGE_BODY_BYTES) {
    throw new SettingsError('EDGE_BODIES_BYTES must be at least twice EDGE_BODY_BYTES');
  }
  return {
    ...given(read),
    port: read.PORT,
    host: read.EDGE_HOST,
    dataFolder: read.EDGE_DATA,
    openTenantsMax: read.EDGE_OPEN_TENANTS,
    diskFreePercentMin: read.EDGE_DISK_FREE_PERCENT,
    bodiesBytesMax: read.EDGE_BODIES_BYTES,
    logLevel: read.EDGE_LOG_LEVEL,
  };
}

/** Bindings that are no text (databases, objects) are left alone. @throws SettingsError */
export function readWorkerSettings(env: Env): EdgeSettings & GivenSettings {
  const settings = given(parse(sharedFields, env));
  return { ...settings, ...allSecrets(settings) };
}

export type Secrets = Pick<
  EdgeSettings,
  'keySigningSecrets' | 'cacheSecret' | 'workerToken' | 'adminToken'
>;

/** @throws SettingsError for the first secret that is missing. */
export function allSecrets(settings: GivenSettings): Secrets {
  return {
    keySigningSecrets: present(settings.keySigningSecrets, 'EDGE_KEY_SIGNING_SECRETS'),
    cacheSecret: present(settings.cacheSecret, 'EDGE_CACHE_SECRET'),
    workerToken: present(settings.workerToken, 'WORKER_TOKEN'),
    adminToken: present(settings.adminToken, 'EDGE_ADMIN_TOKEN'),
  };
}

function present<Value>(value: Value | null, name: string): Value {
  if (value === null) throw new SettingsError(`${name} is missing`);
  return value;
}

function parse<Fields extends z.ZodRawShape>(
  fields: Fields,
  env: Env,
): z.output<z.ZodObject<Fields>> {
  const known = Object.keys(fields);
  const unknown = Object.keys(env).find(
    (name) => name.startsWith('EDGE_') && typeof env[name] === 'string' && !known.includes(name),
  );
  if (unknown !== undefined) {
    const nearest = nearestName(unknown, known) ?? '';
    throw new SettingsError(
      `${unknown} is no setting of the edge, ${nearest} is; there are ${known.join(', ')}`,
    );
  }
  // An empty variable counts as not set: that is how compose files leave one out.
  const texts = Object.fromEntries(known.map((name) => [name, env[name] || undefined]));
  const parsed = z.object(fields).safeParse(texts);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new SettingsError(`${String(issue?.path[0])}: ${issue?.message}`);
}

function given(read: Shared): GivenSettings {
  const secretKey = read.EDGE_STRIPE_SECRET_KEY;
  const webhookSecret = read.EDGE_STRIPE_WEBHOOK_SECRET;
  if ((secretKey === undefined) !== (webhookSecret === undefined)) {
    throw new SettingsError(
      'EDGE_STRIPE_SECRET_KEY and EDGE_STRIPE_WEBHOOK_SECRET go together: set both or neither',
    );
  }
  return {
    keySigningSecrets: read.EDGE_KEY_SIGNING_SECRETS ?? null,
    cacheSecret: read.EDGE_CACHE_SECRET ?? null,
    workerToken: read.WORKER_TOKEN ?? null,
    adminToken: read.EDGE_ADMIN_TOKEN ?? null,
    stripe: secretKey && webhookSecret ? { secretKey, webhookSecret } : null,
    bodyBytesMax: read.EDGE_BODY_BYTES,
    keepAliveMs: read.EDGE_KEEP_ALIVE_MS,
    outputTokensDefault: read.EDGE_OUTPUT_TOKENS,
    queueMsMax: read.EDGE_QUEUE_MS,
    staticWorkers: described(read),
    workerHosts: read.EDGE_WORKER_HOSTS,
    holdMs: read.EDGE_HOLD_MINUTES * 60_000,
    runOnMs: read.EDGE_RUN_ON_MINUTES * 60_000,
  };
}

function withinHosts(
  workers: Shared['EDGE_STATIC_WORKERS'],
  hosts: readonly string[],
): Shared['EDGE_STATIC_WORKERS'] {
  for (const { id, url } of workers) {
    const refusal = refuseWorkerUrl(url, hosts);
    if (refusal !== null) throw new SettingsError(`EDGE_STATIC_WORKERS: ${id}: its ${refusal}`);
  }
  return workers;
}

/** @throws SettingsError for what is said of a worker that there is not. */
function described(read: Shared): StaticWorker[] {
  const workers = withinHosts(read.EDGE_STATIC_WORKERS, read.EDGE_WORKER_HOSTS);
  const tokens = read.EDGE_STATIC_WORKER_TOKENS ?? new Map<string, string>();
  const slotsById = read.EDGE_STATIC_WORKER_SLOTS ?? new Map<string, number>();
  const said = { EDGE_STATIC_WORKER_TOKENS: tokens, EDGE_STATIC_WORKER_SLOTS: slotsById };
  for (const [name, named] of Object.entries(said)) {
    const stray = [...named.keys()].find((id) => !workers.some((worker) => worker.id === id));
    if (stray === undefined) continue;
    throw new SettingsError(`${name}: '${stray}' is none of EDGE_STATIC_WORKERS`);
  }
  return workers.map((worker) => {
    const token = tokens.get(worker.id);
    const slots = slotsById.get(worker.id);
    const ownToken = token === undefined ? null : { bearer: token || null };
    return { ...worker, ownToken, ...(slots !== undefined && { slots }) };
  });
}
