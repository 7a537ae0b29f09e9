/**
 * A caller who is going to be refused whatever the body says is refused before a byte of it is
 * read.
 */
import { afterEach, expect, test } from 'vitest';
import { createApiKey } from '../../../edge/auth/api-key.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import { operator } from '../../support/edge/tenant-samples.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

const harnesses: Harness[] = [];
afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close();
});
async function start(options: Parameters<typeof startHarness>[0] = {}): Promise<Harness> {
  const harness = await startHarness(options);
  harnesses.push(harness);
  return harness;
}

const largeBytes = 1024 * 1024;
const text = 'x'.repeat(largeBytes);
const chat = { model: testModel, max_tokens: 4, messages: [{ role: 'user', content: text }] };
const prompt = { model: testModel, max_tokens: 4, prompt: text };
const paths = [
  '/v1/chat/completions',
  '/beta/completions',
  '/anthropic/v1/messages',
  '/anthropic/v1/messages/count_tokens',
  '/v1/quote',
];
const paidPaths = paths.slice(0, 3);

/** Posts a body of which the test knows how much was read. */
async function send(
  edge: Harness,
  path: string,
  { key, stated, headers = {} }: { key: string; stated: boolean; headers?: object },
) {
  const json = path === '/beta/completions' ? prompt : chat;
  const bytes = new TextEncoder().encode(JSON.stringify(json));
  let read = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (read === bytes.length) return controller.close();
        const piece = bytes.subarray(read, read + 16_384);
        read += piece.length;
        controller.enqueue(piece);
      },
    },
    { highWaterMark: 0 },
  );
  const response = await edge.app.request(
    path,
    // Node's fetch wants `duplex` beside a stream; its types do not know it.
    {
      method: 'POST',
      headers: {
        authorization: `Bearer ${key}`,
        'content-type': 'application/json',
        ...(stated && { 'content-length': String(bytes.length) }),
        ...headers,
      },
      body,
      duplex: 'half',
    } as RequestInit,
  );
  return { response, read: () => read, length: bytes.length };
}

const kinds: readonly {
  readonly name: string;
  readonly status: number;
  readonly paths?: readonly string[];
  readonly key: (edge: Harness) => Promise<string>;
}[] = [
  {
    name: 'a key that nobody signed',
    status: 401,
    key: async (edge) => edge.apiKey.replace(/.{4}$/, 'AAAA'),
  },
  {
    name: 'a signed key of no tenant',
    status: 401,
    key: async ({ settings, services }) =>
      createApiKey({
        tenant: 'nobody',
        signingSecrets: settings.keySigningSecrets,
        random: services.random,
      }).key,
  },
  {
    name: 'a revoked key',
    status: 401,
    key: async (edge) => {
      const [record] = await edge.tenant.keys();
      await edge.tenant.updateKey(record?.keyId ?? '', { status: 'revoked' }, operator);
      return edge.apiKey;
    },
  },
  {
    name: 'a key without the scope',
    status: 403,
    key: (edge) => edge.addKey('acme', { scopes: ['read'] }),
  },
  {
    name: 'a suspended account',
    status: 403,
    key: async (edge) => {
      await edge.directory.setTenantStatus('acme', 'suspended');
      return edge.apiKey;
    },
  },
  {
    name: 'a key at its limit of requests',
    status: 429,
    paths: paths.slice(0, 4),
    key: (edge) => edge.addKey('acme', { limits: { requestsPerMinute: 0 } }),
  },
  {
    name: 'an empty balance',
    status: 402,
    paths: paidPaths,
    key: (edge) => edge.addTenant('poor', 0),
  },
];

test.each(kinds)(
  '$name is refused with $status before the body is read',
  async ({ status, key, paths: asked = paths }) => {
    const edge = await start();
    const sent = await key(edge);
    for (const path of asked) {
      for (const stated of [true, false]) {
        const { response, read } = await send(edge, path, { key: sent, stated });
        expect(response.status, path).toBe(status);
        expect(read(), path).toBe(0);
        if (status === 429) expect(response.headers.get('retry-after')).toMatch(/^\d+$/);
      }
    }
    expect(edge.services.bodies.bytes()).toBe(0);
  },
);

test.each(paidPaths)(
  '%s reads the body of a caller who may, and gives its bytes back',
  async (path) => {
    const edge = await start({ scripts: [{ words: [' yes'] }] });
    const { response, read, length } = await send(edge, path, { key: edge.apiKey, stated: false });
    expect(response.status).toBe(200);
    await response.text();
    expect(read()).toBe(length);
    await edge.idle();
    expect(edge.services.bodies.bytes()).toBe(0);
  },
);

test('a model that costs nothing is open to an empty balance, however large the request', async () => {
  const edge = await start({ scripts: [{ words: [' free'] }] });
  const free = { id: 'free', inputCached: 0, inputUncached: 0, output: 0 };
  const from = { fromMs: 1, window: null };
  await edge.directory.addPrice({ ...free, ...from, model: testModel });
  const key = await edge.addTenant('poor', 0);
  const { response } = await send(edge, '/v1/chat/completions', { key, stated: true });
  expect(response.status).toBe(200);
  await response.text();
});

test('a large request that was answered under its key is replayed to an empty balance', async () => {
  const edge = await start({ scripts: [{ words: [' once'] }] });
  const headers = { 'idempotency-key': 'k1' };
  const ask = () => send(edge, '/v1/chat/completions', { key: edge.apiKey, stated: true, headers });
  const first = await (await ask()).response.text();
  const { granted } = await edge.tenant.balance();
  const [entry] = await edge.tenant.entries({ afterId: 0, limit: 1 });
  await edge.tenant.correct({ entryId: entry?.id ?? 0, amountNanoUsd: -granted, note: 'test' });
  const again = await ask();
  expect(again.response.headers.get('idempotent-replayed')).toBe('true');
  expect(await again.response.text()).toBe(first);
  expect(edge.services.bodies.bytes()).toBe(0);
});

test('bodies beyond the budget wait, and all are answered', async () => {
  // Room for one of them at a time.
  const edge = await start({
    scripts: [{ words: [' x'] }],
    settings: { bodyBytesMax: 2 * largeBytes },
    bodiesBytesMax: 2 * largeBytes,
  });
  const answers = await Promise.all(
    Array.from({ length: 4 }, async (_, at) => {
      const { response } = await send(edge, paidPaths[at % 3] ?? '', {
        key: edge.apiKey,
        stated: at % 2 === 0,
      });
      await response.text();
      return response.status;
    }),
  );
  expect(new Set(answers)).toEqual(new Set([200]));
  await edge.idle();
  expect(edge.services.bodies.bytes()).toBe(0);
});

test('a client that sends too slowly is told so, and keeps nothing', async () => {
  const edge = await start({ settings: { bodyWindowMs: 20 } });
  for (const length of [100, largeBytes]) {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(10)),
    });
    const response = await edge.app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.apiKey}`, 'content-length': String(length) },
      body,
      duplex: 'half',
    } as RequestInit);
    expect(response.status).toBe(408);
    expect(await response.json()).toMatchObject({ error: { code: 'body_too_slow' } });
  }
  expect(edge.services.bodies.bytes()).toBe(0);
});

test('two Host headers are refused, on every route', async () => {
  const edge = await start();
  for (const path of ['/health', '/v1/models', '/nowhere', '/anthropic/v1/models']) {
    const headers = new Headers({ authorization: `Bearer ${edge.apiKey}` });
    headers.append('host', 'a.example');
    headers.append('host', 'b.example');
    const response = await edge.app.request(path, { headers });
    expect(response.status, path).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { message: expect.stringContaining('Host') },
    });
  }
});
