/** The edge's settings: those of both runtimes, and those of Node alone. */
import { z } from 'zod';
import type { Settings } from '../../infra/settings.ts';
import { tracingSettings } from '../../infra/tracing/tracing-settings.ts';
import { isHostPattern } from '../fleet/worker-url.ts';

const secret = z.string().min(16, 'must have at least 16 characters');
const secrets = z
  .string()
  .transform((text) => text.split(',').map((each) => each.trim()))
  .pipe(z.array(secret).min(1).max(8));
/** Reads Ed25519 seeds, and public keys behind `public:`; no message quotes one. */
const receiptKeys = z.string().transform((text, context) => {
  const keys = text.split(',').map((each) => each.trim());
  // 32 bytes in base64url end in a character whose last two bits are 0.
  const isKey = /^(public:)?[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
  if (
    keys.length <= 32 &&
    keys.every((key) => isKey.test(key)) &&
    !keys[0]?.startsWith('public:')
  ) {
    return keys;
  }
  const message = 'expected seeds of 32 bytes in base64url, then public:KEY of retired ones';
  context.addIssue({ code: 'custom', message });
  return z.NEVER;
});
const count = z.coerce.number().int().min(1);
const madeOnce = 'made once, on Node';

/** Reads `id=url,id=url`. */
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

/** Reads `id=token,id=token`; nothing after the = shows the worker no token at all. */
const staticWorkerTokens = z.string().transform((text, context) => {
  const tokens = new Map<string, string>();
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, id, token] = /^([A-Za-z0-9._-]{1,128})=([\x21-\x7e]*)$/.exec(part) ?? [];
    if (id === undefined || token === undefined || tokens.has(id)) {
      // The message does not quote the part, which may hold a token.
      context.addIssue({ code: 'custom', message: 'expected id=token,id=token, each id once' });
      return z.NEVER;
    }
    tokens.set(id, token);
  }
  return tokens;
});

/** Reads `host,host:port,*.domain`. */
const hostPatterns = z.string().transform((text, context) => {
  const hosts = text.split(',').map((each) => each.trim().toLowerCase());
  const bad = hosts.find((host) => !isHostPattern(host));
  if (bad === undefined) return hosts;
  context.addIssue({ code: 'custom', message: `'${bad}' is no host, host:port or *.domain` });
  return z.NEVER;
});

/** Reads `id=count,id=count`. */
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

/** Settings of both runtimes. */
export const sharedSettings = {
  keySigningSecrets: {
    env: 'EDGE_KEY_SIGNING_SECRETS',
    help: 'sign API keys: newest first, separated by commas; all verify, the newest signs',
    defaultText: madeOnce,
    schema: secrets.optional(),
  },
  cacheSecret: {
    env: 'EDGE_CACHE_SECRET',
    help: 'roots the prefix keys; a new one forgets every cached prefix',
    defaultText: madeOnce,
    schema: secret.optional(),
  },
  adminToken: {
    env: 'EDGE_ADMIN_TOKEN',
    help: 'opens /admin',
    defaultText: madeOnce,
    schema: secret.optional(),
  },
  workerToken: {
    env: 'WORKER_TOKEN',
    help: 'what the edge and its workers show each other',
    defaultText: madeOnce,
    schema: secret.optional(),
  },
  receiptKeys: {
    env: 'EDGE_RECEIPT_KEYS',
    help:
      'Ed25519 seeds of receipts: newest first, separated by commas; all verify, the newest ' +
      'signs; public:KEY verifies alone',
    defaultText: 'made once, on Node; else no receipts',
    schema: receiptKeys.default([]),
  },
  stripeSecretKey: {
    env: 'EDGE_STRIPE_SECRET_KEY',
    help: 'secret key of the Stripe account that tenants pay into; needs the webhook secret too',
    schema: z.string().min(1).optional(),
  },
  stripeWebhookSecret: {
    env: 'EDGE_STRIPE_WEBHOOK_SECRET',
    help: 'secret of the webhook of the Stripe account',
    schema: z.string().min(1).optional(),
  },
  staticWorkers: {
    env: 'EDGE_STATIC_WORKERS',
    help: 'engines that do not announce themselves (vLLM, SGLang): id=url,id=url',
    schema: staticWorkers.default([]),
  },
  staticWorkerTokens: {
    env: 'EDGE_STATIC_WORKER_TOKENS',
    help:
      'tokens that the edge shows to EDGE_STATIC_WORKERS in place of WORKER_TOKEN: ' +
      'id=token,id=token; id= shows none',
    schema: staticWorkerTokens.optional(),
  },
  staticWorkerSlots: {
    env: 'EDGE_STATIC_WORKER_SLOTS',
    help:
      'answers that each of EDGE_STATIC_WORKERS is given at a time, while other requests wait ' +
      'in the edge: id=count,id=count',
    defaultText: '128 each',
    schema: staticWorkerSlots.optional(),
  },
  workerHosts: {
    env: 'EDGE_WORKER_HOSTS',
    help: 'hosts that workers may have: host, host:port, *.domain, separated by commas',
    defaultText: 'any',
    schema: hostPatterns.default([]),
  },
  webhookHosts: {
    env: 'EDGE_WEBHOOK_HOSTS',
    help:
      'hosts of webhooks that may be reached without TLS and on private addresses: host, ' +
      'host:port, *.domain, separated by commas',
    defaultText: 'none',
    schema: hostPatterns.default([]),
  },
  outputTokens: {
    env: 'EDGE_OUTPUT_TOKENS',
    help: 'output tokens of a request that states no maximum',
    schema: count.max(1_000_000).default(4_096),
  },
  leaseTokens: {
    env: 'EDGE_LEASE_TOKENS',
    help: 'output tokens of each answer that are held at first; more are held while it is made',
    schema: count.max(1_000_000).default(4_096),
  },
  queueMs: {
    env: 'EDGE_QUEUE_MS',
    help:
      'a request that would wait more milliseconds for a worker is refused with 429, ' +
      'unless it says itself how long it waits',
    schema: z.coerce.number().int().min(0).max(600_000).default(30_000),
  },
  storeResponses: {
    env: 'EDGE_STORE_RESPONSES',
    help:
      "when-asked stores responses whose request has 'store' true, unless-refused also those of " +
      "requests without 'store'",
    schema: z.enum(['when-asked', 'unless-refused']).default('when-asked'),
  },
  holdMinutes: {
    env: 'EDGE_HOLD_MINUTES',
    help: "holds older than this are settled from the worker's journal",
    schema: count.max(24 * 60).default(10),
  },
  runOnMinutes: {
    env: 'EDGE_RUN_ON_MINUTES',
    help:
      'minutes that an answer with an Idempotency-Key goes on without a client before it is ' +
      'ended; 0 to 60',
    schema: z.coerce.number().int().min(0).max(60).default(10),
  },
  runOnTokens: {
    env: 'EDGE_RUN_ON_TOKENS',
    help: 'tokens that such an answer goes on for without a client before it is ended',
    schema: z.coerce.number().int().min(0).max(10_000_000).default(32_768),
  },
  bodyBytes: {
    env: 'EDGE_BODY_BYTES',
    help: 'largest request body',
    schema: count.max(64 * 2 ** 20).default(8 * 2 ** 20),
  },
  keepAliveMs: {
    env: 'EDGE_KEEP_ALIVE_MS',
    help: 'a stream that has nothing to say sends a comment after so many milliseconds',
    schema: count.max(60_000).default(5_000),
  },
  ...tracingSettings,
} satisfies Settings;

/** Settings that the edge has on Node beside the shared ones. */
const settingsOfNodeAlone = {
  port: {
    env: 'PORT',
    help: 'port to listen on, 0 for any free one',
    schema: z.coerce.number().int().min(0).max(65_535).default(8787),
  },
  host: {
    env: 'EDGE_HOST',
    help: 'address to listen on',
    schema: z.string().min(1).default('127.0.0.1'),
  },
  dataFolder: {
    env: 'EDGE_DATA',
    help: 'directory of the databases and of the secrets that were not given',
    schema: z.string().min(1).default('./data'),
  },
  threads: {
    env: 'EDGE_THREADS',
    help: 'threads that take requests, each with a core to itself',
    schema: count.max(64).default(1),
  },
  openTenants: {
    env: 'EDGE_OPEN_TENANTS',
    help: 'tenants whose databases are open at a time',
    schema: count.max(100_000).default(256),
  },
  diskFreePercent: {
    env: 'EDGE_DISK_FREE_PERCENT',
    help: "the log and /health warn when less of the data's disk is left",
    schema: z.coerce.number().min(0).max(100).default(5),
  },
  bodiesBytes: {
    env: 'EDGE_BODIES_BYTES',
    help: 'all request bodies in memory together; beyond that they wait, then get 429',
    schema: count.max(64 * 2 ** 30).default(128 * 2 ** 20),
  },
  logLevel: {
    env: 'EDGE_LOG_LEVEL',
    help: 'debug, info, warn, error or silent',
    schema: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  },
} satisfies Settings;

export const nodeSettings = { ...settingsOfNodeAlone, ...sharedSettings } satisfies Settings;
