import { expect, test } from 'vitest';
import { UserError } from '../../../infra/user-error.ts';
import { readNodeSettings, readWorkerSettings } from '../../../edge/settings/read-settings.ts';

const secrets = {
  EDGE_KEY_SIGNING_SECRETS: 'newest-signing-secret, older-signing-secret',
  EDGE_CACHE_SECRET: 'cache-secret-of-the-tests',
  WORKER_TOKEN: 'worker-token-of-the-tests',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
};

test('without any variable there is a default for everything but secrets', () => {
  expect(readNodeSettings({})).toEqual({
    port: 8787,
    host: '127.0.0.1',
    threads: 1,
    dataFolder: './data',
    openTenantsMax: 256,
    diskFreePercentMin: 5,
    logLevel: 'info',
    keySigningSecrets: null,
    cacheSecret: null,
    workerToken: null,
    adminToken: null,
    receiptKeys: [],
    stripe: null,
    bodyBytesMax: 8 * 1024 * 1024,
    bodiesBytesMax: 128 * 1024 * 1024,
    keepAliveMs: 5_000,
    outputTokensDefault: 4_096,
    leaseTokens: 4_096,
    queueMsMax: 30_000,
    storesUnasked: false,
    staticWorkers: [],
    tracing: null,
    workerHosts: [],
    webhookHosts: [],
    holdMs: 600_000,
    runOnMs: 600_000,
    runOnTokens: 32_768,
  });
});

test('what is given is read, and what is empty counts as not given', () => {
  const settings = readNodeSettings({
    ...secrets,
    PORT: '0',
    EDGE_HOST: '',
    EDGE_STATIC_WORKERS: 'a=http://a.test:8000/, b=https://b.test,c=http://c.test',
    EDGE_STATIC_WORKER_TOKENS: 'a=token=of:a, c=',
    EDGE_STATIC_WORKER_SLOTS: 'b=64',
    EDGE_STRIPE_SECRET_KEY: 'sk',
    EDGE_STRIPE_WEBHOOK_SECRET: 'wh',
    SIFT_MODEL: 'of the worker, no business of the edge',
  });
  expect(settings).toMatchObject({
    port: 0,
    host: '127.0.0.1',
    keySigningSecrets: ['newest-signing-secret', 'older-signing-secret'],
    stripe: { secretKey: 'sk', webhookSecret: 'wh' },
    staticWorkers: [
      { id: 'a', url: 'http://a.test:8000', ownToken: { bearer: 'token=of:a' } },
      { id: 'b', url: 'https://b.test', ownToken: null, slots: 64 },
      { id: 'c', url: 'http://c.test', ownToken: { bearer: null } },
    ],
  });
});

test('the address of an edge, which admin reads, is not taken for a slip in a setting', () => {
  expect(readNodeSettings({ EDGE_URL: 'http://127.0.0.1:8787' }).port).toBe(8787);
  expect(() => readNodeSettings({ EDGE_URLS: 'http://127.0.0.1:8787' })).toThrow(/^EDGE_URLS /);
});

test('what is wrong is refused by name', () => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ EDGE_PORT: '1' }, /^EDGE_PORT is no setting of the edge, PORT is; there are .*PORT/],
    [{ PORT: '70000' }, /^PORT: must be at most 65535$/],
    [{ PORT: 'http' }, /^PORT: /],
    [{ EDGE_ADMIN_TOKEN: 'short' }, /^EDGE_ADMIN_TOKEN: must have at least 16 characters/],
    [{ EDGE_KEY_SIGNING_SECRETS: 'long-enough-by-far,short' }, /^EDGE_KEY_SIGNING_SECRETS: /],
    [{ EDGE_RECEIPT_KEYS: 'too-short' }, /^EDGE_RECEIPT_KEYS: expected seeds of 32 bytes/],
    [{ EDGE_RECEIPT_KEYS: `public:${'A'.repeat(43)}` }, /^EDGE_RECEIPT_KEYS: expected seeds/],
    [{ EDGE_STATIC_WORKERS: 'http://a.test' }, /is not a new id=url/],
    [{ EDGE_STATIC_WORKERS: 'a=http://a.test,a=http://b.test' }, /is not a new id=url/],
    [{ EDGE_STATIC_WORKER_TOKENS: 'x=t' }, /'x' is none of EDGE_STATIC_WORKERS/],
    [{ EDGE_STATIC_WORKER_SLOTS: 'x=1' }, /SLOTS: 'x' is none of EDGE_STATIC_WORKERS/],
    [{ EDGE_STATIC_WORKER_SLOTS: 'a=0' }, /^EDGE_STATIC_WORKER_SLOTS: 'a=0' is not a new/],
    [{ EDGE_STATIC_WORKER_TOKENS: 'a' }, /^EDGE_STATIC_WORKER_TOKENS: expected id=token/],
    [{ EDGE_STRIPE_SECRET_KEY: 'sk' }, /set both or neither/],
    [{ EDGE_LOG_LEVEL: 'loud' }, /^EDGE_LOG_LEVEL: /],
    [{ EDGE_HOLD_MINUTES: '0' }, /^EDGE_HOLD_MINUTES: must be at least 1$/],
    [{ EDGE_QUEUE_MS: 'soon' }, /^EDGE_QUEUE_MS: must be a number$/],
    [{ EDGE_QUEUE_MS: '1.5' }, /^EDGE_QUEUE_MS: must be a whole number$/],
    [{ EDGE_STORE_RESPONSES: 'yes' }, /must be one of when-asked, unless-refused$/],
    [{ EDGE_KEY_SIGNING_SECRETS: Array(9).fill('x'.repeat(16)).join() }, /SECRETS: .*8 items$/],
  ];
  for (const [env, message] of cases) {
    expect(() => readNodeSettings(env)).toThrow(UserError);
    expect(() => readNodeSettings(env)).toThrow(message);
  }
});

test('on Cloudflare every secret must be given, and bindings are no settings', () => {
  const bindings = { TENANT: {}, EDGE_SOMETHING_BOUND: {} };
  expect(readWorkerSettings({ ...secrets, ...bindings })).toMatchObject({
    cacheSecret: 'cache-secret-of-the-tests',
    keepAliveMs: 5_000,
  });
  for (const name of Object.keys(secrets)) {
    expect(() => readWorkerSettings({ ...secrets, [name]: '' })).toThrow(`${name} is missing`);
  }
});
