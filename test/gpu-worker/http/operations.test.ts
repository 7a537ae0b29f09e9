/** The operator's view of a worker: health, models, metrics, the token, the log. */
import { describe, expect, test } from 'vitest';
import { createLifecycle } from '../../../gpu-worker/http/lifecycle.ts';
import { createApp } from '../../../gpu-worker/http/app.ts';
import { usageRecordSchema } from '../../../gpu-worker/protocol/usage.ts';
import { modelListSchema } from '../../../gpu-worker/protocol/responses.ts';
import { healthSchema } from '../../../gpu-worker/protocol/heartbeat.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../support/worker/http-worker.ts';
import type { Script } from '../../support/worker/scripted-engine.ts';

const question = { model: 'tiny', messages: [{ role: 'user', content: 'my secret prompt' }] };

function ask(worker: HttpWorker, body: object = question, headers: Record<string, string> = {}) {
  return worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

test('health follows the worker from its start to its stop, and requests are refused but when ready', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const lifecycle = createLifecycle();
  const app = createApp({ ...worker.services, lifecycle });
  const health = async () => {
    const response = await app.request('/health');
    return [response.status, healthSchema.parse(await response.json())] as const;
  };
  const tryAsking = async () => {
    const response = await app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(question),
    });
    return response.status;
  };

  lifecycle.starting('loading weights');
  expect(await health()).toEqual([
    503,
    { status: 'starting', reason: 'loading weights', models: [], load: null },
  ]);
  expect(await tryAsking()).toBe(503);
  expect(await (await app.request('/v1/models')).json()).toEqual({ object: 'list', data: [] });

  lifecycle.serve(worker.model);
  expect(await health()).toMatchObject([
    200,
    { status: 'ready', reason: null, models: ['tiny'], load: { blocks_total: 100 } },
  ]);
  expect(await tryAsking()).toBe(200);

  lifecycle.drain();
  expect(await health()).toMatchObject([503, { status: 'draining', models: ['tiny'] }]);
  expect(await tryAsking()).toBe(503);
});

test('health tells what its operator should see to, and the worker serves on', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const app = createApp({ ...worker.services, warnings: () => ['The disk is nearly full.'] });
  const response = await app.request('/health');
  expect([response.status, healthSchema.parse(await response.json())]).toMatchObject([
    200,
    { status: 'ready', warnings: ['The disk is nearly full.'] },
  ]);
});

test('an engine that failed makes the worker unhealthy, with the reason', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  worker.engine.fail('NaN in layer 3');
  const response = await worker.app.request('/health');
  expect([response.status, await response.json()]).toMatchObject([
    503,
    { status: 'failed', reason: 'the engine failed: NaN in layer 3' },
  ]);
  expect((await ask(worker)).status).toBe(503);
});

test('the model is listed with its context length, and found by its id alone', async () => {
  await using worker = await httpWorker({ script: answering('x'), model: { id: 'org/tiny' } });
  const list = modelListSchema.parse(await (await worker.app.request('/v1/models')).json());
  expect(list.data).toMatchObject([
    { id: 'org/tiny', created: 1_700_000_000, owned_by: 'sift', max_model_len: 1024 },
  ]);
  const found = await worker.app.request('/v1/models/org/tiny');
  expect(await found.json()).toEqual(list.data[0]);
  // Clients that escape the id write it so.
  expect((await worker.app.request('/v1/models/org%2Ftiny')).status).toBe(200);
  expect((await worker.app.request('/v1/models/other')).status).toBe(404);
});

test('the usage of a request is found by its id', async () => {
  await using worker = await httpWorker({ script: answering('x', 'y') });
  await ask(worker, question, { 'x-request-id': 'req-7' });
  const response = await worker.app.request('/v1/requests/req-7/usage');
  expect(usageRecordSchema.parse(await response.json())).toMatchObject({
    id: 'req-7',
    status: 'done',
    usage: { completion_tokens: 2 },
  });
  const unknown = await worker.app.request('/v1/requests/req-8/usage');
  expect([unknown.status, await unknown.json()]).toMatchObject([
    404,
    { error: { code: 'request_not_found' } },
  ]);
});

test('with a token configured everything but health asks for it', async () => {
  await using worker = await httpWorker({
    script: answering('x'),
    settings: { token: 'w-secret' },
  });
  const paths = ['/metrics', '/v1/models', '/v1/models/tiny', '/v1/requests/a/usage'];
  for (const path of [...paths, '/v1/chat/completions', '/v1/completions']) {
    const wrong = ['', 'Bearer', 'Bearer ', 'Bearer w-secre', 'Bearer w-secret2', 'Basic w-secret'];
    for (const authorization of wrong) {
      const response = await worker.app.request(path, { headers: { authorization } });
      expect([path, response.status, await response.json()]).toMatchObject([
        path,
        401,
        { error: { type: 'authentication_error', code: 'invalid_api_key', param: null } },
      ]);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
    }
  }
  expect((await worker.app.request('/health')).status).toBe(200);
  expect((await ask(worker, question, { authorization: 'Bearer w-secret' })).status).toBe(200);
  const metrics = await worker.app.request('/metrics', {
    headers: { authorization: 'bearer w-secret' },
  });
  expect(metrics.status).toBe(200);
});

test('metrics count requests by route and status, and show what the engine counts', async () => {
  const script = { ...answering('a', 'b', 'c'), cachedTokens: 5 };
  await using worker = await httpWorker({ script });
  await ask(worker);
  await (await ask(worker, { ...question, stream: true })).text();
  await ask(worker, { model: 'tiny' });
  await worker.app.request('/v1/made/up/path');
  const response = await worker.app.request('/metrics');
  expect(response.headers.get('content-type')).toContain('text/plain; version=0.0.4');
  const lines = (await response.text()).split('\n');
  for (const line of [
    'sift_http_requests_total{route="/v1/chat/completions",status="200"} 2',
    'sift_http_requests_total{route="/v1/chat/completions",status="400"} 1',
    // A path of the client's making is no label.
    'sift_http_requests_total{route="unknown",status="404"} 1',
    'sift_time_to_first_token_seconds_count 2',
    'sift_inter_token_latency_seconds_count 4',
    'sift_output_tokens_total 6',
    'sift_cached_tokens_total 10',
    'sift_kv_blocks_total 100',
    'sift_preemptions_total 0',
    'sift_ready 1',
    'sift_journal_errors 0',
    'sift_build_info{version="0.0.0",model="tiny",revision="0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",backend="cpu"} 1',
  ]) {
    expect(lines).toContain(line);
  }
  // Totals are read anew, not added up, by a second scrape.
  const again = await (await worker.app.request('/metrics')).text();
  expect(again.split('\n')).toContain('sift_output_tokens_total 6');
});

test('the log has one line per request, with counts and without prompts, outputs or keys', async () => {
  await using worker = await httpWorker({
    script: answering('secret answer'),
    settings: { token: 'w-secret' },
  });
  const authorization = 'Bearer w-secret';
  const headers = { authorization, 'x-request-id': 'one' };
  await ask(worker, { ...question, user: 'customer-5' }, headers);
  const stream = await ask(
    worker,
    { ...question, stream: true },
    { authorization, 'x-request-id': 'two' },
  );
  expect(worker.log.filter((line) => line.requestId === 'two')).toEqual([]);
  await stream.text();
  await ask(worker, question, { 'x-request-id': 'three' });

  const lines = worker.log.filter((line) => line.msg === 'request');
  expect(lines).toMatchObject([
    {
      requestId: 'one',
      method: 'POST',
      route: '/v1/chat/completions',
      status: 200,
      outcome: 'done',
      durationMs: expect.any(Number),
      firstTokenMs: expect.any(Number),
      usage: { outputTokens: 1 },
      user: 'customer-5',
    },
    { requestId: 'two', status: 200, usage: { outputTokens: 1 } },
    { requestId: 'three', status: 401 },
  ]);
  expect(JSON.stringify(worker.log)).not.toMatch(/secret/);
});

test('what the engine refuses is logged and counted by its own status, not as a client that left', async () => {
  const error = { kind: 'busy', message: 'the queue is full', retryAfterSeconds: 1 } as const;
  await using worker = await httpWorker({ script: { ...answering('x'), refuse: () => error } });
  for (const stream of [false, true]) await ask(worker, { ...question, stream });
  const lines = worker.log.filter((line) => line.msg === 'request');
  expect(lines).toMatchObject([
    { status: 429, outcome: 'failed' },
    { status: 429, outcome: 'failed' },
  ]);
});

describe('a request that is cancelled', () => {
  const cancel = async (worker: HttpWorker, id: string) => {
    const response = await worker.app.request(`/v1/requests/${id}/cancel`, { method: 'POST' });
    expect(response.status).toBe(200);
    return usageRecordSchema.parse(await response.json());
  };

  test('while it runs is stopped, and counted up to there', async () => {
    const endless: Script = {
      *answer() {
        for (;;) yield { token: 100, text: 'word ' };
      },
      stepMs: 2,
    };
    await using worker = await httpWorker({ script: endless, contextLength: 100_000 });
    const answer = ask(worker, { ...question, max_tokens: 50_000 }, { 'x-request-id': 'gone' });
    await expect.poll(() => worker.engine.steps.get('gone') ?? 0).toBeGreaterThan(3);
    expect((await cancel(worker, 'gone')).status).toBe('running');
    await answer;
    const record = await cancel(worker, 'gone');
    expect(record).toMatchObject({ status: 'aborted' });
    expect(record.usage.completion_tokens).toBeGreaterThan(0);
  });

  test('after its end keeps its count', async () => {
    await using worker = await httpWorker({ script: answering('a', 'b') });
    await ask(worker, question, { 'x-request-id': 'ended' });
    expect(await cancel(worker, 'ended')).toMatchObject({
      status: 'done',
      usage: { completion_tokens: 2 },
    });
    // Its id can be used again, as that of any that has ended.
    expect((await ask(worker, question, { 'x-request-id': 'ended' })).status).toBe(200);
  });

  test('before it comes computes nothing when it comes', async () => {
    await using worker = await httpWorker({ script: answering('a') });
    const unseen = await worker.app.request('/v1/requests/late/usage');
    expect(unseen.status).toBe(404);
    expect(await cancel(worker, 'late')).toMatchObject({
      status: 'aborted',
      usage: { prompt_tokens: 0, completion_tokens: 0 },
    });
    const response = await ask(worker, question, { 'x-request-id': 'late' });
    expect(response.status).toBe(409);
    expect((await response.json()).error.code).toBe('request_id_in_use');
    expect(worker.engine.requests).toEqual([]);
    expect(await cancel(worker, 'late')).toMatchObject({ status: 'aborted' });
  });

  test('needs the token, as its count does', async () => {
    const token = 'a-token-of-some-length';
    await using worker = await httpWorker({ script: answering('a'), settings: { token } });
    const response = await worker.app.request('/v1/requests/x/cancel', { method: 'POST' });
    expect(response.status).toBe(401);
  });
});
