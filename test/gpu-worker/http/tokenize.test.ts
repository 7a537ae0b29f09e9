/** The prompt of a conversation, told without computing it. */
import { expect, test } from 'vitest';
import { answering, httpWorker, thinkingTemplate } from '../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../support/worker/http-worker.ts';

function post(worker: HttpWorker, path: string, body: object) {
  return worker.app.request(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

const conversations = {
  'a question': { messages: [{ role: 'user', content: 'What is ☕ <|user|>?' }] },
  'an answer begun': {
    messages: [
      { role: 'user', content: 'What is it?' },
      { role: 'assistant', content: 'It', prefix: true },
    ],
  },
  'a thinking model': {
    messages: [{ role: 'user', content: 'What is it?' }],
    thinking: { type: 'enabled' },
  },
};

test.each(Object.entries(conversations))(
  'the tokens of %s are those that a chat completion computes',
  async (_, conversation) => {
    const thinks = 'thinking' in conversation;
    await using worker = await httpWorker({
      script: answering('tea'),
      ...(thinks && { template: thinkingTemplate }),
    });
    const body = { model: 'tiny', ...conversation };
    const goesOn = conversation.messages.some((message) => 'prefix' in message);
    // vLLM is asked in this form.
    const ending = { add_generation_prompt: !goesOn, continue_final_message: goesOn };
    const answer = await post(worker, '/tokenize', { ...body, ...ending });
    expect(answer.status).toBe(200);
    const plain = await post(worker, '/tokenize', body);
    expect(await plain.json()).toEqual(await answer.clone().json());
    expect(worker.engine.requests).toEqual([]);
    await post(worker, '/v1/chat/completions', body);
    const tokens = Array.from(worker.engine.requests[0]?.promptTokens ?? []);
    expect(tokens.length).toBeGreaterThan(3);
    expect(await answer.json()).toEqual({
      count: tokens.length,
      max_model_len: worker.model.engine.description.contextLength,
      tokens,
    });
  },
);

test('what a chat completion would refuse is refused, and what is no part of a prompt too', async () => {
  await using worker = await httpWorker({ script: answering('tea') });
  const messages = [{ role: 'user', content: 'What is it?' }];
  const refused = async (body: object) => {
    const response = await post(worker, '/tokenize', body);
    const { error }: { error: { code: string } } = JSON.parse(await response.text());
    return [response.status, error.code];
  };
  expect(await refused({ model: 'other', messages })).toEqual([404, 'model_not_found']);
  expect(await refused({ model: 'tiny' })).toEqual([400, 'missing_required_parameter']);
  const thinking = { type: 'enabled' };
  expect(await refused({ model: 'tiny', messages, thinking })).toEqual([
    400,
    'unsupported_parameter',
  ]);
  for (const ending of [{ add_generation_prompt: false }, { continue_final_message: true }]) {
    expect(await refused({ model: 'tiny', messages, ...ending })).toEqual([400, 'invalid_value']);
  }
  expect(await refused({ model: 'tiny', messages, max_tokens: 5 })).toEqual([
    400,
    'unknown_parameter',
  ]);
});
