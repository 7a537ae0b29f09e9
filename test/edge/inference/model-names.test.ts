/** Errors about models: what does not exist, and what exists and nobody serves. */
import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

const opened: Harness[] = [];
afterEach(async () => {
  for (const edge of opened.splice(0)) await edge.close();
});

async function open(options: Parameters<typeof startHarness>[0] = {}): Promise<Harness> {
  const edge = await startHarness(options);
  opened.push(edge);
  return edge;
}

const messages = [{ role: 'user', content: 'Hello.' }];
/** Every protocol's way to ask a model. */
const asks: readonly (readonly [path: string, body: Readonly<Record<string, unknown>>])[] = [
  ['/v1/chat/completions', { messages }],
  ['/v1/chat/completions', { messages, stream: true }],
  ['/v1/completions', { prompt: 'Hello' }],
  ['/anthropic/v1/messages', { messages, max_tokens: 8 }],
  ['/anthropic/v1/messages', { messages, max_tokens: 8, stream: true }],
  ['/anthropic/v1/messages/count_tokens', { messages }],
];

async function errorsOf(edge: Harness, model: string) {
  const errors = [];
  for (const [path, body] of asks) {
    // None of them waits in the edge for a worker to have room.
    const headers = { 'x-sift-max-wait-ms': '0' };
    const response = await edge.post(path, { ...body, model }, { headers });
    const { error } = await response.json();
    errors.push({ path, status: response.status, message: error.message });
  }
  return errors;
}

test('a model that does not exist is answered with the nearest one, in every protocol', async () => {
  const edge = await open();
  const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
  await edge.directory.putModel({ ...record, id: 'deepseek-ai/DeepSeek-V3.2', createdAtMs: 0 });
  const nearest = {
    'sift-tset': testModel,
    'SIFT-TEST': testModel,
    test: testModel,
    'deepseek-v3.2': 'deepseek-ai/DeepSeek-V3.2',
    'sift-test-2026-01-01': testModel,
  };
  for (const [asked, name] of Object.entries(nearest)) {
    const message = `The model '${asked}' does not exist. The nearest one is '${name}'.`;
    for (const error of await errorsOf(edge, asked)) {
      expect(error).toEqual({ path: error.path, status: 404, message });
    }
    for (const path of [`/v1/models/${asked}`, `/models/${encodeURIComponent(asked)}`]) {
      const answer = await edge.get(path);
      expect(answer.status).toBe(404);
      expect((await answer.json()).error).toEqual({
        message,
        type: 'invalid_request_error',
        param: 'model',
        code: 'model_not_found',
      });
    }
    const quoted = await edge.post('/v1/quote', { model: asked, messages });
    expect((await quoted.json()).error.message).toBe(message);
  }
});

test('a model that no worker serves is named', async () => {
  for (const scripts of [[], [{}]]) {
    const edge = await open({ scripts });
    const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
    await edge.directory.putModel({ ...record, id: 'lonely', createdAtMs: 0 });
    const price = { inputCached: 1, inputUncached: 1, output: 1, fromMs: 0, window: null };
    await edge.directory.addPrice({ ...price, id: 'p2', model: 'lonely' });
    for (const error of await errorsOf(edge, 'lonely')) {
      expect(error).toMatchObject({
        status: 503,
        message: "No worker serves the model 'lonely'. Try again later.",
      });
    }
  }
});

test('busy workers are told from those that are not ready and those that cannot be reached', async () => {
  const fault = { kind: 'status', status: 429, retryAfter: '7' } as const;
  const busy = await open({ scripts: [{ fault }, { fault }] });
  for (const { path, ...error } of await errorsOf(busy, testModel)) {
    if (path.endsWith('count_tokens')) continue;
    const message = expect.stringContaining(`All workers of the model '${testModel}' are busy`);
    expect(error).toEqual({ status: 429, message });
  }
  const unready = await open();
  await unready.fleet.drain('worker-0', true);
  for (const { message } of await errorsOf(unready, testModel)) {
    expect(message).toBe(`No worker of the model '${testModel}' is ready. Try again later.`);
  }
  const gone = await open();
  await gone.worker.close();
  for (const { message } of await errorsOf(gone, testModel)) {
    expect(message).toBe(
      `No worker of the model '${testModel}' could take the request. Try again later.`,
    );
  }
});
