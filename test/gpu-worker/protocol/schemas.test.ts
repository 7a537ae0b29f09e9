/** The edge relies on this when it reads other workers' answers; and the bounds of requests. */
import { expect, test } from 'vitest';
import {
  chatCompletionRequestSchema,
  completionRequestSchema,
} from '../../../gpu-worker/protocol/requests.ts';
import { errorBodySchema } from '../../../gpu-worker/protocol/errors.ts';
import { heartbeatSchema } from '../../../gpu-worker/protocol/heartbeat.ts';

test('a list that is too long has one fault, not one per element', () => {
  const messages = Array(100_000).fill(0);
  const chat = chatCompletionRequestSchema.safeParse({ model: 'm', messages });
  expect(chat.error?.issues).toHaveLength(1);
  const prompt = Array(100_000).fill('x').fill(0, 1);
  const completion = completionRequestSchema.safeParse({ model: 'm', prompt });
  expect(completion.error?.issues).toHaveLength(1);
});

test('a key that JSON made its own does not reach a prototype', () => {
  const body = JSON.parse('{"model":"m","prompt":"x","__proto__":{"stream":true}}');
  expect(completionRequestSchema.safeParse(body).success).toBe(false);
});

test('a heartbeat of an unknown shape is not one', () => {
  expect(heartbeatSchema.safeParse({ id: 'a', url: 'not a url' }).success).toBe(false);
});

test('an error body is told from an event', () => {
  const error = { message: 'm', type: 'server_error', param: null, code: null };
  expect(errorBodySchema.safeParse({ error }).success).toBe(true);
  expect(errorBodySchema.safeParse({ id: 'x', choices: [] }).success).toBe(false);
});
