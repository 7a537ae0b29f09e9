/** Refusals that a key, its account or a limit is the reason of. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createApp } from '../../../edge/app.ts';
import { createApiKey } from '../../../edge/auth/api-key.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import { operator } from '../../support/edge/tenant-samples.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
beforeAll(async () => {
  edge = await startHarness({ settings: { bodyBytesMax: 100_000 } });
});
afterAll(() => edge.close());

const chat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };

const errorOf = async (path: string, body: unknown, headers: Record<string, string>) => {
  const response = await edge.post(path, body, { headers });
  const json = await response.json();
  return { status: response.status, ...json.error };
};

const bodyWith = async (key: string) => {
  const response = await edge.post('/v1/chat/completions', chat, {
    headers: { authorization: `Bearer ${key}` },
  });
  return { status: response.status, body: await response.text() };
};

describe('a key', () => {
  test('that is unknown, revoked, forged, malformed or of no tenant gets one and the same body', async () => {
    const revoked = await edge.addKey('acme');
    const keyId = revoked.split('.')[1] ?? '';
    expect((await bodyWith(revoked)).status).toBe(200);
    await edge.tenant.updateKey(keyId, { status: 'revoked' }, operator);
    const unknown = createApiKey({
      tenant: 'acme',
      signingSecrets: edge.settings.keySigningSecrets,
      random: edge.services.random,
    }).key;
    const elsewhere = createApiKey({
      tenant: 'nobody',
      signingSecrets: edge.settings.keySigningSecrets,
      random: edge.services.random,
    }).key;
    const forged = `${edge.apiKey.slice(0, -5)}AAAAA`;
    const answers = await Promise.all(
      [revoked, unknown, elsewhere, forged, 'sk-x'].map((key) => bodyWith(key)),
    );
    expect(answers.map(({ status }) => status)).toEqual([401, 401, 401, 401, 401]);
    expect(new Set(answers.map(({ body }) => body)).size).toBe(1);
  });

  test('that is forged touches no storage', async () => {
    const touched: string[] = [];
    const services = {
      ...edge.services,
      tenant: (id: string) => {
        touched.push(id);
        return edge.services.tenant(id);
      },
    };
    const response = await createApp(services).request('/v1/chat/completions', {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.apiKey.slice(0, -5)}AAAAA` },
      body: JSON.stringify(chat),
    });
    expect(response.status).toBe(401);
    expect(touched).toEqual([]);
  });

  test('is also taken from x-api-key, and none at all is said to be missing', async () => {
    const byHeader = await edge.app.request('/v1/models', {
      headers: { 'x-api-key': edge.apiKey },
    });
    expect(byHeader.status).toBe(200);
    const none = await edge.app.request('/v1/models');
    expect(none.status).toBe(401);
    expect((await none.json()).error.message).toContain('x-api-key');
  });

  test('may do what its scopes say', async () => {
    const reader = { authorization: `Bearer ${await edge.addKey('acme', { scopes: ['read'] })}` };
    const worker = {
      authorization: `Bearer ${await edge.addKey('acme', { scopes: ['inference'] })}`,
    };
    expect((await errorOf('/v1/chat/completions', chat, reader)).status).toBe(403);
    expect((await edge.get('/user/balance', reader)).status).toBe(200);
    expect((await edge.get('/user/balance', worker)).status).toBe(403);
    expect((await edge.get('/v1/usage', worker)).status).toBe(403);
    expect((await edge.get('/v1/models', worker)).status).toBe(200);
  });

  test('of a suspended account is refused until the account is active again', async () => {
    const key = { authorization: `Bearer ${await edge.addTenant('sleepy')}` };
    await edge.directory.setTenantStatus('sleepy', 'suspended');
    expect(await errorOf('/v1/chat/completions', chat, key)).toMatchObject({
      status: 403,
      code: 'account_suspended',
    });
    expect((await edge.get('/user/balance', key)).status).toBe(403);
    await edge.directory.setTenantStatus('sleepy', 'active');
    expect((await edge.get('/user/balance', key)).status).toBe(200);
  });
});

describe('a limit', () => {
  test('is on every answer, and says when to come again once it is reached', async () => {
    const key = await edge.addKey('acme', {
      limits: { requestsPerMinute: 2, tokensPerMinute: 100_000 },
    });
    const headers = { authorization: `Bearer ${key}` };
    const first = await edge.post('/v1/chat/completions', chat, { headers });
    expect(Object.fromEntries(first.headers)).toMatchObject({
      'x-ratelimit-limit-requests': '2',
      'x-ratelimit-remaining-requests': '1',
      'x-ratelimit-limit-tokens': '100000',
    });
    expect(first.headers.get('x-ratelimit-reset-requests')).toMatch(/^(\d+m)?[\d.]+m?s$/);
    await edge.post('/v1/chat/completions', chat, { headers });
    const third = await edge.post('/v1/chat/completions', chat, { headers });
    expect(third.status).toBe(429);
    expect(third.headers.get('retry-after')).toBe('30');
    expect(third.headers.get('x-ratelimit-remaining-requests')).toBe('0');
    expect((await third.json()).error).toMatchObject({
      type: 'rate_limit_error',
      code: 'rate_limit_exceeded',
    });
    edge.advance(31_000);
    expect((await edge.post('/v1/chat/completions', chat, { headers })).status).toBe(200);
  });

  test('of requests at a time counts a stream until it ends', async () => {
    const key = await edge.addKey('acme', { limits: { concurrentRequests: 1 } });
    const headers = { authorization: `Bearer ${key}` };
    edge.worker.script = { ...edge.worker.script, pauseMs: 10 };
    const open = await edge.post('/v1/chat/completions', { ...chat, stream: true }, { headers });
    const second = await edge.post('/v1/chat/completions', chat, { headers });
    expect(second.status).toBe(429);
    await open.text();
    await edge.idle();
    edge.worker.script = { ...edge.worker.script, pauseMs: 0 };
    expect((await edge.post('/v1/chat/completions', chat, { headers })).status).toBe(200);
  });
});
