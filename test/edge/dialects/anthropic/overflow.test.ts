/** A request that exceeds the context is refused in the words and numbers that clients look for. */
import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../../support/edge/edge-harness.ts';
import type { Harness } from '../../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const message = {
  model: testModel,
  max_tokens: 500,
  messages: [{ role: 'user', content: 'Hello.' }],
};

/** A worker that refuses; `overflow` is what it says in numbers. */
async function start(overflow: object | undefined): Promise<void> {
  const error = {
    message: "This model's maximum context length is 1000 tokens.",
    type: 'invalid_request_error',
    param: 'messages',
    code: 'context_length_exceeded',
    ...(overflow && { overflow }),
  };
  edge = await startHarness({
    scripts: [{ fault: { kind: 'reject', status: 400, body: { error } } }],
  });
}

const cases = [
  [
    { prompt_tokens: 501, output_tokens: 500, context_tokens: 1_000 },
    'input length and `max_tokens` exceed context limit: 501 + 500 > 1000, ' +
      'decrease input length or `max_tokens` and try again',
  ],
  [
    { prompt_tokens: 1_000, output_tokens: 500, context_tokens: 1_000 },
    'input length and `max_tokens` exceed context limit: 1000 + 500 > 1000, ' +
      'decrease input length or `max_tokens` and try again',
  ],
  [
    { prompt_tokens: 1_001, output_tokens: 500, context_tokens: 1_000 },
    'prompt is too long: 1001 tokens > 1000 maximum',
  ],
  [
    { prompt_tokens: 9_000, output_tokens: null, context_tokens: 1_000 },
    'prompt is too long: 9000 tokens > 1000 maximum',
  ],
  [undefined, "prompt is too long: This model's maximum context length is 1000 tokens."],
  [
    { prompt_tokens: 900, output_tokens: null, context_tokens: 1_000 },
    "prompt is too long: This model's maximum context length is 1000 tokens.",
  ],
] as const;

test.each(cases)('%j becomes %j, whole, streamed and counted', async (overflow, sentence) => {
  await start(overflow);
  const { max_tokens: _, ...prompt } = message;
  for (const [path, body] of [
    ['/anthropic/v1/messages', message],
    ['/anthropic/v1/messages', { ...message, stream: true }],
    ['/anthropic/v1/messages/count_tokens', prompt],
  ] as const) {
    const response = await edge.post(path, body);
    expect(response.status).toBe(400);
    expect(response.headers.get('request-id')).toBe(response.headers.get('x-request-id'));
    expect(await response.json()).toEqual({
      type: 'error',
      error: { type: 'invalid_request_error', message: sentence },
      request_id: response.headers.get('x-request-id'),
    });
  }
});

test("OpenAI's clients keep OpenAI's sentence, code and fields", async () => {
  await start({ prompt_tokens: 1_001, output_tokens: 500, context_tokens: 1_000 });
  const response = await edge.post('/v1/chat/completions', message);
  expect(response.status).toBe(400);
  expect(await response.json()).toEqual({
    error: {
      message: "This model's maximum context length is 1000 tokens.",
      type: 'invalid_request_error',
      param: 'messages',
      code: 'context_length_exceeded',
    },
  });
});
