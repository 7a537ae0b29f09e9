/** Earlier answers in a conversation, as a worker is sent them. */
import { afterEach, expect, test } from 'vitest';
import { chatCompletionRequestSchema } from '../../../gpu-worker/protocol/requests.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { sentToWorker } from '../../support/edge/sent-to-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

const sent = (path: string, body: unknown) => sentToWorker(edge, path, body);

test('a history may hold what OpenAI’s client parsed, and the model is shown the texts alone', async () => {
  edge = await startHarness();
  const called = { name: 'look', arguments: '{"city":"Bergen"}' };
  const call = { id: 'call-1', type: 'function', function: called };
  const parsedCall = { ...call, function: { ...called, parsed_arguments: { city: 'Bergen' } } };
  const result = { role: 'tool', tool_call_id: 'call-1', content: 'Rain.' };
  const history = (calls: object[], parsed: object) => [
    { role: 'user', content: 'Weather?' },
    { role: 'assistant', content: null, tool_calls: calls, ...parsed },
    result,
    { role: 'assistant', content: '{"rain":true}', ...parsed },
    { role: 'user', content: 'Sure?' },
  ];
  const messages = history([parsedCall], { parsed: { rain: true } });
  const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
  expect(body.messages).toEqual(history([call], {}));
});

test('a refusal in the history is what its assistant said', async () => {
  edge = await startHarness();
  const user = { role: 'user', content: 'Why?' };
  for (const content of [null, 'Rather not.']) {
    const refused = { role: 'assistant', content, refusal: 'I cannot.' };
    const messages = [user, refused, { ...refused, content: 'Yes.', refusal: null }, user];
    const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
    const said = [content ?? 'I cannot.', 'Yes.'].map((text) => ({
      role: 'assistant',
      content: text,
      refusal: null,
    }));
    expect(body.messages).toEqual([user, ...said, user]);
  }
});

test('a conversation that grows is sent where its prefix is, and the index learns the reply', async () => {
  edge = await startHarness({ scripts: [{}, {}, {}] });
  const messages = [{ role: 'user', content: 'A long story. '.repeat(800) }];
  const served = new Set<string>();
  for (let turn = 0; turn < 4; turn++) {
    const response = await edge.post('/v1/chat/completions', { model: testModel, messages });
    const { choices, usage } = await response.json();
    expect(usage.prompt_cache_hit_tokens > 0).toBe(turn > 0);
    await edge.idle();
    messages.push(choices[0].message, { role: 'user', content: 'Go on. '.repeat(400) });
    served.add(edge.settles.at(-1)?.worker ?? '');
    expect((edge.settles.at(-1)?.predictedCachedBytes ?? 0) > 0).toBe(turn > 0);
  }
  expect(served.size).toBe(1);
});

/** A call as each engine's answers hold it, whole or collected from a stream. */

const emitted = {
  vllm: {
    role: 'assistant',
    content: null,
    refusal: null,
    annotations: null,
    audio: null,
    function_call: null,
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
    reasoning: 'hm',
    reasoning_content: 'hm',
  },
  sglang: {
    role: 'assistant',
    content: null,
    reasoning_content: 'hm',
    tool_calls: [
      { id: 'c1', index: 0, type: 'function', function: { name: 'f', arguments: '{}' } },
    ],
  },
  'TensorRT-LLM': {
    role: 'assistant',
    content: '',
    reasoning_content: null,
    reasoning: 'hm',
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
  },
  'llama.cpp': {
    role: 'assistant',
    content: null,
    reasoning_content: 'hm',
    tool_calls: [{ id: 'c1', index: null, function: { name: 'f', arguments: {} } }],
  },
  'a gateway': {
    role: 'assistant',
    content: null,
    reasoning: 'hm',
    reasoning_details: [{ type: 'reasoning.text', text: 'hm' }],
    refusal: null,
    tool_calls: [
      { id: 'c1', index: 0, type: 'function', function: { name: 'f', arguments: '{}' } },
    ],
  },
};

test.each(Object.entries(emitted))('a history of %s is taken', async (_, said) => {
  const messages = [
    { role: 'user', content: 'Hello.' },
    { ...said },
    { role: 'tool', tool_call_id: 'c1', content: 'ok' },
    { role: 'assistant', content: 'Hi.', tool_calls: [], reasoning: null },
    { role: 'user', content: 'And now?' },
  ];
  const call = { id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } };
  const taken = { role: 'assistant', reasoning_content: 'hm', tool_calls: [call] };
  for (const hasJournal of [true, false]) {
    edge = await startHarness({ hasJournal });
    const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
    const history = body.messages as object[];
    expect(history[1]).toMatchObject({ ...taken, ...(!hasJournal && { reasoning: 'hm' }) });
    expect(history[1]).not.toHaveProperty('reasoning_details');
    expect(history[3]).not.toHaveProperty('tool_calls');
    if (hasJournal) expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
    await edge.close();
  }
  // Fields that a client may send to a worker itself are taken as well.
  const direct = chatCompletionRequestSchema.parse({ model: testModel, messages });
  expect(direct.messages[1]).toMatchObject(taken);
  expect(direct.messages[1]).not.toHaveProperty('reasoning');
});
