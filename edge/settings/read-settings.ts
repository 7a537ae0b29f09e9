/**
 * Reads the edge's settings from environment variables, by one table for both runtimes. All names
 * of its own begin with EDGE_; one that is not listed is refused, because a setting with a slip in
 * its name would silently not be set.
 */
import { readSettings } from '../../infra/settings.ts';
import type { Env, Settings, SettingsOf } from '../../infra/settings.ts';
import { tracingChoice } from '../../infra/tracing/tracing-settings.ts';
import type { TracingChoice } from '../../infra/tracing/tracing-settings.ts';
import { UserError } from '../../infra/user-error.ts';
import { refuseWorkerUrl } from '../fleet/worker-url.ts';
import { nearestName } from '../nearest.ts';
import type { EdgeSettings } from './edge-settings.ts';
import type { StaticWorker } from '../fleet/worker-contract.ts';
import { nodeSettings, sharedSettings } from './settings-table.ts';

type Shared = SettingsOf<typeof sharedSettings>;

/** Settings of either runtime. The secrets are null where they were not given. */
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
  readonly tracing: TracingChoice;
  readonly runOnTokens: number;
}

export interface NodeSettings extends GivenSettings {
  readonly port: number;
  readonly host: string;
  readonly dataFolder: string;
  /** Threads that take requests. */
  readonly threads: number;
  readonly openTenantsMax: number;
  readonly diskFreePercentMin: number;
  readonly bodiesBytesMax: number;
  readonly logLevel: SettingsOf<typeof nodeSettings>['logLevel'];
}

/** @throws UserError that names the variable at fault. */
export function readNodeSettings(env: Env): NodeSettings {
  const read = parse(nodeSettings, env);
  if (read.bodiesBytes < 2 * read.bodyBytes * read.threads) {
    const each = read.threads === 1 ? '' : ' for each of EDGE_THREADS';
    throw new UserError(`EDGE_BODIES_BYTES must be at least twice EDGE_BODY_BYTES${each}`);
  }
  return {
    ...given(read),
    port: read.port,
    host: read.host,
    dataFolder: read.dataFolder,
    threads: read.threads,
    openTenantsMax: read.openTenants,
    diskFreePercentMin: read.diskFreePercent,
    bodiesBytesMax: read.bodiesBytes,
    logLevel: read.logLevel,
  };
}

/** Bindings that are no text (databases, objects) are left alone. @throws UserError */
export function readWorkerSettings(env: Env): EdgeSettings & GivenSettings {
  const settings = given(parse(sharedSettings, env));
  return { ...settings, ...allSecrets(settings) };
}

export type Secrets = Pick<
  EdgeSettings,
  'keySigningSecrets' | 'cacheSecret' | 'workerToken' | 'adminToken'
>;

/** @throws UserError for the first secret that is missing. */
export function allSecrets(settings: GivenSettings): Secrets {
  return {
    keySigningSecrets: present(settings.keySigningSecrets, 'EDGE_KEY_SIGNING_SECRETS'),
    cacheSecret: present(settings.cacheSecret, 'EDGE_CACHE_SECRET'),
    workerToken: present(settings.workerToken, 'WORKER_TOKEN'),
    adminToken: present(settings.adminToken, 'EDGE_ADMIN_TOKEN'),
  };
}

function present<Value>(value: Value | null, name: string): Value {
  if (value === null) throw new UserError(`${name} is missing`);
  return value;
}

/** Variables of the operator's commands, which may run where an edge does. */
const ofCommands = ['EDGE_URL'];

function parse<Table extends Settings>(table: Table, env: Env): SettingsOf<Table> {
  const known = Object.values(table).map((row) => row.env);
  const unknown = Object.keys(env).find(
    (name) =>
      name.startsWith('EDGE_') &&
      typeof env[name] === 'string' &&
      !known.includes(name) &&
      !ofCommands.includes(name),
  );
  if (unknown !== undefined) {
    const nearest = nearestName(unknown, known);
    const meant = nearest === null ? '' : `, ${nearest} is`;
    throw new UserError(
      `${unknown} is no setting of the edge${meant}; there are ${known.join(', ')}`,
    );
  }
  return readSettings(table, { env });
}

function given(read: Shared): GivenSettings {
  const secretKey = read.stripeSecretKey;
  const webhookSecret = read.stripeWebhookSecret;
  if ((secretKey === undefined) !== (webhookSecret === undefined)) {
    throw new UserError(
      'EDGE_STRIPE_SECRET_KEY and EDGE_STRIPE_WEBHOOK_SECRET go together: set both or neither',
    );
  }
  return {
    keySigningSecrets: read.keySigningSecrets ?? null,
    cacheSecret: read.cacheSecret ?? null,
    workerToken: read.workerToken ?? null,
    adminToken: read.adminToken ?? null,
    receiptKeys: read.receiptKeys,
    stripe: secretKey && webhookSecret ? { secretKey, webhookSecret } : null,
    bodyBytesMax: read.bodyBytes,
    keepAliveMs: read.keepAliveMs,
    outputTokensDefault: read.outputTokens,
    leaseTokens: read.leaseTokens,
    queueMsMax: read.queueMs,
    storesUnasked: read.storeResponses === 'unless-refused',
    staticWorkers: described(read),
    workerHosts: read.workerHosts,
    webhookHosts: read.webhookHosts,
    holdMs: read.holdMinutes * 60_000,
    runOnMs: read.runOnMinutes * 60_000,
    tracing: tracingChoice(read),
    runOnTokens: read.runOnTokens,
  };
}

function withinHosts(
  workers: Shared['staticWorkers'],
  hosts: readonly string[],
): Shared['staticWorkers'] {
  for (const { id, url } of workers) {
    const refusal = refuseWorkerUrl(url, hosts);
    if (refusal !== null) throw new UserError(`EDGE_STATIC_WORKERS: ${id}: its ${refusal}`);
  }
  return workers;
}

/**
 * Joins what the settings say of each static worker.
 * @throws UserError for a setting of a worker that is not listed.
 */
function described(read: Shared): StaticWorker[] {
  const workers = withinHosts(read.staticWorkers, read.workerHosts);
  const tokens = read.staticWorkerTokens ?? new Map<string, string>();
  const slotsById = read.staticWorkerSlots ?? new Map<string, number>();
  const byVariable = { EDGE_STATIC_WORKER_TOKENS: tokens, EDGE_STATIC_WORKER_SLOTS: slotsById };
  for (const [name, named] of Object.entries(byVariable)) {
    const stray = [...named.keys()].find((id) => !workers.some((worker) => worker.id === id));
    if (stray === undefined) continue;
    throw new UserError(`${name}: '${stray}' is none of EDGE_STATIC_WORKERS`);
  }
  return workers.map((worker) => {
    const token = tokens.get(worker.id);
    const slots = slotsById.get(worker.id);
    const ownToken = token === undefined ? null : { bearer: token || null };
    return { ...worker, ownToken, ...(slots !== undefined && { slots }) };
  });
}
