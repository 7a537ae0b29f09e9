import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

const harnesses: Harness[] = [];
afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close();
});
async function start(options: Parameters<typeof startHarness>[0]): Promise<Harness> {
  const harness = await startHarness(options);
  harnesses.push(harness);
  return harness;
}

const path = '/anthropic/v1/messages/count_tokens';
const prompt = { model: testModel, messages: [{ role: 'user', content: 'Say hello.' }] };

test('a count takes neither balance nor a flight nor an entry, and one request of the limit', async () => {
  const edge = await start({
    scripts: [{ promptTokens: 7 }],
    balanceNanoUsd: 0,
    limits: { requestsPerMinute: 2, concurrentRequests: 1 },
  });
  expect(await (await edge.post(path, prompt)).json()).toEqual({ input_tokens: 7 });
  const second = await edge.post(path, prompt);
  expect(second.headers.get('x-ratelimit-remaining-requests')).toBe('0');
  const third = await edge.post(path, prompt);
  expect(third.status).toBe(429);
  expect(await third.json()).toMatchObject({ type: 'error', error: { type: 'rate_limit_error' } });
  expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(await edge.tenant.entries({ afterId: 0, limit: 10 })).toEqual([]);
  expect(await edge.tenant.audit()).toEqual([]);
  await edge.idle();
  expect(await edge.fleet.status()).toMatchObject([{ requestsInFlight: 0, tokensInFlight: 0 }]);
});

test('a worker that is down is passed over; when all are, the count is refused for now', async () => {
  const edge = await start({
    scripts: [{ fault: { kind: 'status', status: 503 } }, { promptTokens: 9 }],
  });
  expect(await (await edge.post(path, prompt)).json()).toEqual({ input_tokens: 9 });
  for (const worker of edge.workers) {
    worker.script = { ...worker.script, fault: { kind: 'status', status: 503 } };
  }
  const answer = await edge.post(path, prompt);
  expect(answer.status).toBe(503);
  expect(answer.headers.get('retry-after')).toMatch(/^\d+$/);
});

test('what a sift worker finds wrong is said to the client, by its parameter', async () => {
  const body = {
    error: { message: 'No.', type: 'x', param: 'tools', code: 'unsupported_parameter' },
  };
  const edge = await start({ scripts: [{ fault: { kind: 'reject', status: 400, body } }] });
  const answer = await edge.post(path, prompt);
  expect(answer.status).toBe(400);
  expect(await answer.json()).toMatchObject({
    type: 'error',
    error: { type: 'invalid_request_error', message: 'No.' },
  });
});

test('where a foreign engine cannot count, the answer is a bound and says so', async () => {
  const body = { detail: 'Not Found' };
  const edge = await start({
    scripts: [{ fault: { kind: 'reject', status: 404, body } }],
    hasJournal: false,
  });
  const answer = await edge.post(path, prompt);
  expect(answer.headers.get('x-sift-token-count')).toBe('upper-bound');
  const { input_tokens: bound }: { input_tokens: number } = JSON.parse(await answer.text());
  const quote = await edge.post('/v1/quote', prompt);
  expect(await quote.json()).toMatchObject({ prompt_tokens_max: bound });
});

test('a foreign engine is told how the prompt ends', async () => {
  const edge = await start({ hasJournal: false });
  await edge.post(path, prompt);
  expect(edge.worker.requests.at(-1)?.body).toMatchObject({
    add_generation_prompt: true,
    continue_final_message: false,
  });
  const begun = [...prompt.messages, { role: 'assistant', content: 'Hel' }];
  const schema = { type: 'object', properties: {}, additionalProperties: false };
  const format = { type: 'json_schema', schema };
  await edge.post(path, { ...prompt, messages: begun, output_config: { format } });
  expect(edge.worker.requests.at(-1)?.body).toMatchObject({
    add_generation_prompt: false,
    continue_final_message: true,
  });
});

test('what belongs to an answer is no part of a prompt', async () => {
  const edge = await start({});
  const answer = await edge.post(path, { ...prompt, max_tokens: 5 });
  expect(answer.status).toBe(400);
  expect(await answer.json()).toMatchObject({
    error: { message: "Unknown parameter: 'max_tokens'." },
  });
});
