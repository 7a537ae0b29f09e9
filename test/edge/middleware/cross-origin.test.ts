import { afterEach, expect, test } from 'vitest';
import { mounts } from '../../../edge/edge.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const origin = 'https://app.test';
const body = { model: testModel, messages: [{ role: 'user', content: 'Hi.' }] };
const preflight = (path: string) =>
  edge.app.request(path, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type,x-stainless-lang',
    },
  });

test('a page asks first, without its key, and may then send one', async () => {
  edge = await startHarness();
  for (const path of ['/v1/chat/completions', '/anthropic/v1/messages', '/v1/models/a/b']) {
    const answer = await preflight(path);
    expect(answer.status).toBe(204);
    expect(answer.headers.get('access-control-allow-origin')).toBe('*');
    expect(answer.headers.get('access-control-allow-methods')).toContain('POST');
    expect(answer.headers.get('access-control-allow-headers')).toContain('authorization');
    expect(answer.headers.get('access-control-allow-credentials')).toBeNull();
  }
});

test('a page may delete where the path takes it', async () => {
  edge = await startHarness();
  const allowed = async (path: string) =>
    (await preflight(path)).headers.get('access-control-allow-methods');
  expect(await allowed('/v1/responses/resp_1')).toBe('GET, DELETE');
  expect(await allowed('/v1/responses')).toBe('GET, POST');
});

test('a page reads answers, streams, errors and their headers', async () => {
  edge = await startHarness();
  const headers = { origin };
  const answers = [
    await edge.post('/v1/chat/completions', body, { headers }),
    await edge.post('/v1/chat/completions', { ...body, stream: true }, { headers }),
    await edge.post('/v1/chat/completions', {}, { headers }),
    await edge.post('/v1/chat/completions', body, { headers: { ...headers, authorization: '' } }),
  ];
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 400, 401]);
  for (const answer of answers) {
    expect(answer.headers.get('access-control-allow-origin')).toBe('*');
    expect(answer.headers.get('access-control-expose-headers')).toBe('*');
    expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f]{32}$/);
    await answer.text();
  }
  const plain = await edge.post('/v1/chat/completions', body);
  expect(plain.headers.get('access-control-allow-origin')).toBeNull();
});

test('no page of another origin reaches the operator, the workers or the payments', async () => {
  edge = await startHarness({ mounts });
  for (const path of [
    '/admin/tenants',
    '/internal/workers/heartbeat',
    '/payments/stripe/webhook',
  ]) {
    const answer = await preflight(path);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.headers.get('access-control-allow-origin')).toBeNull();
  }
});
