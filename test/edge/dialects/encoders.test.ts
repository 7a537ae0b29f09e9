import { expect, test } from 'vitest';
import type { Choice, Chunk, Delta } from '../../../edge/engines/chunk.ts';
import { ApiError } from '../../../edge/errors.ts';
import { createAnthropicAnswer, toStopReason } from '../../../edge/dialects/anthropic/answer.ts';
import { createAnthropicEncoder } from '../../../edge/dialects/anthropic/events.ts';
import { createChatAnswer } from '../../../edge/dialects/openai/chat-answer.ts';
import { createOpenAiEncoder } from '../../../edge/dialects/openai/events.ts';
import { createTextAnswer } from '../../../edge/dialects/openai/text-answer.ts';

const head = { id: 'a-1', model: 'public-name' };
const usage = { inputUncached: 0, inputCached: 64, outputText: 2, outputReasoning: 1 };
const told = { hidesThinking: false };
const bill = { usage, costNanoUsd: 5, cacheMissReason: null };
const chunkOf = (delta: Delta, more: Partial<Choice> = {}): Chunk => ({
  object: 'chat.completion.chunk',
  created: 1,
  choices: [{ index: 0, delta, logprobs: null, finish_reason: null, ...more }],
});

test("an OpenAI event has our id and name, and the worker's choices", () => {
  const encoder = createOpenAiEncoder(head, { usage: false, runningUsage: false });
  expect(encoder.chunk(chunkOf({ content: 'x' }), usage)).toBe(
    'data: {"id":"a-1","object":"chat.completion.chunk","created":1,"model":"public-name",' +
      '"choices":[{"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}]}\n\n',
  );
  expect(encoder.chunk({ ...chunkOf({}), choices: [] }, usage)).toBe('');
  expect(encoder.end(bill)).toBe('data: [DONE]\n\n');
});

test("fields are in OpenAI's order, in whatever order the worker sends them", () => {
  const { choices, ...fields } = chunkOf({ content: 'x' });
  const mixed = {
    choices,
    system_fingerprint: 'fp',
    ...Object.fromEntries(Object.entries(fields).toReversed()),
  } as unknown as ReturnType<typeof chunkOf>;
  const tiered = { ...head, service_tier: 'default' as const };
  const order = ['id', 'object', 'created', 'model'];
  const encoder = createOpenAiEncoder(tiered, { usage: true, runningUsage: false });
  const events = [encoder.chunk(mixed, usage), encoder.end(bill)];
  for (const event of events) {
    const json = JSON.parse(event.slice(6, event.indexOf('\n')));
    const rest = ['service_tier', 'system_fingerprint', 'choices', 'usage'];
    expect(Object.keys(json)).toEqual([...order, ...rest]);
  }
  const whole = [createChatAnswer(tiered), createTextAnswer(head)].map((answer) => {
    answer.add(mixed);
    return Object.keys(answer.finish(bill));
  });
  expect(whole).toEqual([
    [...order, 'service_tier', 'system_fingerprint', 'choices', 'usage'],
    [...order, 'system_fingerprint', 'choices', 'usage'],
  ]);
});

test('usage is null until the last event, or runs along if it is asked to', () => {
  const last = createOpenAiEncoder(head, { usage: true, runningUsage: false });
  expect(last.chunk(chunkOf({}), usage)).toContain('"usage":null');
  const end = last.end(bill);
  expect(JSON.parse(end.slice(6, end.indexOf('\n')))).toMatchObject({
    id: 'a-1',
    choices: [],
    usage: { prompt_cache_miss_tokens: 0, cost_nano_usd: 5, completion_tokens: 3 },
  });
  const running = createOpenAiEncoder(head, { usage: true, runningUsage: true });
  expect(running.chunk(chunkOf({}), usage)).toContain('"prompt_cache_hit_tokens":64');
});

test('an Anthropic stream opens and closes each block before the next', () => {
  const encoder = createAnthropicEncoder(head, 'r-1', told);
  const call = (index: number, id: string, name: string, json: string) => ({
    tool_calls: [{ index, id, type: 'function' as const, function: { name, arguments: json } }],
  });
  const text = [
    encoder.chunk(chunkOf({ role: 'assistant', content: '' }), usage),
    encoder.chunk(chunkOf({ reasoning_content: 'hm' }), usage),
    encoder.chunk(chunkOf({ content: 'a' }), usage),
    encoder.chunk(chunkOf({ content: 'b' }), usage),
    encoder.chunk(chunkOf(call(0, 't0', 'f', '{"x":')), usage),
    encoder.chunk(chunkOf({ tool_calls: [{ index: 0, function: { arguments: '1}' } }] }), usage),
    encoder.chunk(chunkOf(call(1, 't1', 'g', '{}')), usage),
    encoder.chunk(chunkOf({}, { finish_reason: 'tool_calls' }), usage),
    encoder.end(bill),
  ].join('');
  const frames = text.trim().split('\n\n');
  for (const frame of frames) {
    const [event, data] = frame.split('\n');
    expect(JSON.parse(data?.slice(6) ?? '').type).toBe(event?.slice(7));
  }
  expect(frames.map((frame) => frame.slice(7, frame.indexOf('\n')))).toEqual([
    'message_start',
    'ping',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'content_block_start',
    'content_block_delta',
    'content_block_delta',
    'content_block_stop',
    'content_block_start',
    'content_block_delta',
    'content_block_delta',
    'content_block_stop',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ]);
  const indices = [...text.matchAll(/"type":"content_block_start","index":(\d)/g)];
  expect(indices.map(([, index]) => index)).toEqual(['0', '1', '2', '3']);
  expect(text).toContain('"stop_reason":"tool_use"');
  expect(text).toContain('"cost_nano_usd":5');
});

test('an Anthropic stream that fails before or after its start ends with an error event', () => {
  const encoder = createAnthropicEncoder(head, 'r-1', told);
  const text = encoder.error(new ApiError('worker_failed', 'It broke.'));
  expect(text).toBe(
    'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"It broke."},' +
      '"request_id":"r-1"}\n\n',
  );
});

test('each way to stop has its name', () => {
  expect(toStopReason('stop', null).stop_reason).toBe('end_turn');
  expect(toStopReason('length', 'x').stop_reason).toBe('max_tokens');
  expect(toStopReason('stop', 'END')).toEqual({
    stop_reason: 'stop_sequence',
    stop_sequence: 'END',
  });
  expect(toStopReason('content_filter', null).stop_reason).toBe('refusal');
  expect(toStopReason('stop', 7).stop_reason).toBe('end_turn');
});

test('choices and tool calls that arrive interleaved are put together by their index', () => {
  const answer = createChatAnswer(head);
  const choice = (index: number, content: string, more: Partial<Choice> = {}): Chunk => ({
    ...chunkOf({ content }, { index, ...more }),
    prompt_logprobs: [null],
  });
  answer.add(choice(1, 'b'));
  answer.add(choice(0, 'a'));
  answer.add(choice(1, 'B', { finish_reason: 'stop' }));
  answer.add(choice(0, 'A', { finish_reason: 'length', logprobs: { content: [{ token: 'A' }] } }));
  expect(answer.reply()).toBeNull();
  expect(written(answer.finish(bill))).toMatchObject({
    id: 'a-1',
    object: 'chat.completion',
    prompt_logprobs: [null],
    choices: [
      {
        index: 0,
        message: { content: 'aA' },
        finish_reason: 'length',
        logprobs: { content: [{}] },
      },
      { index: 1, message: { content: 'bB' }, finish_reason: 'stop', logprobs: null },
    ],
  });
});

test('a plain answer is known as the next turn will send it back; one with tools is not', () => {
  const plain = createChatAnswer(head);
  plain.add(chunkOf({ content: 'Hi' }));
  expect(plain.reply()).toEqual({ role: 'assistant', content: 'Hi' });
  const calls = createChatAnswer(head);
  calls.add(
    chunkOf({ tool_calls: [{ index: 0, id: 't', function: { name: 'f', arguments: '' } }] }),
  );
  expect(calls.reply()).toBeNull();
});

test('choices that never came leave no holes', () => {
  const answer = createChatAnswer(head);
  answer.add(chunkOf({ content: 'x' }, { index: 3 }));
  expect(JSON.stringify(answer.finish(bill))).not.toContain('[null');
});

test("the parallel arrays of a completion's logprobs grow together", () => {
  const answer = createTextAnswer(head);
  const event = (text: string) => ({
    ...chunkOf({}),
    choices: [
      { index: 0, text, logprobs: { tokens: [text], token_logprobs: [-1] }, finish_reason: null },
    ],
  });
  answer.add(event('a'));
  answer.add(event('b'));
  expect(written(answer.finish(bill))).toMatchObject({
    choices: [{ text: 'ab', logprobs: { tokens: ['a', 'b'], token_logprobs: [-1, -1] } }],
  });
});

test('tool arguments that are no object become an empty one', () => {
  const answer = createAnthropicAnswer(head, told);
  answer.add(
    chunkOf({ tool_calls: [{ index: 0, id: 't', function: { name: 'f', arguments: '{"a' } }] }),
  );
  expect(answer.finish(bill)).toMatchObject({ content: [{ type: 'tool_use', input: {} }] });
});

/** The answer as the client reads it. */
function written(answer: object): unknown {
  return JSON.parse(JSON.stringify(answer));
}
