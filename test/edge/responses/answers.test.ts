/** The Responses API as its clients read it: whole answers, events, usage and cost. */
import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel, dataOf } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

const opened: Harness[] = [];
afterEach(async () => {
  for (const edge of opened.splice(0)) await edge.close();
});

async function open(options: HarnessOptions = {}): Promise<Harness> {
  const edge = await startHarness(options);
  opened.push(edge);
  return edge;
}

const asked = { model: testModel, input: 'Hello.' };
const weather = {
  type: 'function',
  name: 'weather',
  description: 'of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};

async function respond(edge: Harness, body: object) {
  const response = await edge.post('/v1/responses', { ...asked, ...body });
  expect(response.status).toBe(200);
  return response.json();
}

async function eventsOf(edge: Harness, body: object) {
  const response = await edge.post('/v1/responses', { ...asked, ...body, stream: true });
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const text = await response.text();
  const names = [...text.matchAll(/^event: (.+)$/gm)].map(([, name]) => name);
  const events = dataOf(text).map((each) => JSON.parse(each));
  expect(events.map(({ type }) => type)).toEqual(names);
  expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, index) => index));
  return events;
}

/** Texts that arrive together may be one delta. */
const steps = (types: readonly string[]) => types.filter((type, at) => type !== types[at - 1]);

test('a text is answered by a message, with what it used and cost', async () => {
  const edge = await open();
  const response = await edge.post('/v1/responses', {
    ...asked,
    instructions: 'Be brief.',
    metadata: { a: 'b' },
    user: 'u1',
  });
  const answer = await response.json();
  const id = response.headers.get('x-request-id');
  expect(answer).toMatchObject({
    id: `resp_${id}`,
    object: 'response',
    created_at: expect.any(Number),
    status: 'completed',
    error: null,
    incomplete_details: null,
    instructions: 'Be brief.',
    metadata: { a: 'b' },
    model: testModel,
    parallel_tool_calls: true,
    previous_response_id: null,
    store: false,
    text: { format: { type: 'text' } },
    tool_choice: 'auto',
    tools: [],
    truncation: 'disabled',
    user: 'u1',
    output: [
      {
        id: `msg_${id}_0`,
        type: 'message',
        role: 'assistant',
        status: 'completed',
        content: [{ type: 'output_text', text: 'Hello wörld 🌍!', annotations: [], logprobs: [] }],
      },
    ],
  });
  const { usage } = answer;
  expect(usage).toEqual({
    input_tokens: expect.any(Number),
    input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
    output_tokens: 5,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: usage.input_tokens + 5,
    cost_nano_usd: Number(response.headers.get('x-sift-cost-nano-usd')),
    cache_miss_reason: { type: 'too_short' },
  });
  expect(edge.settles).toMatchObject([{ outcome: 'done', usage: { outputText: 5 } }]);
  expect(edge.worker.requests[0]?.body).toMatchObject({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello.' },
    ],
    user: 'u1',
  });
});

test('the events of a message come in their order and end with the whole response', async () => {
  const edge = await open({ scripts: [{ words: ['Hel', 'lo'] }] });
  const events = await eventsOf(edge, {});
  expect(steps(events.map(({ type }) => type))).toEqual([
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.content_part.added',
    'response.output_text.delta',
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    'response.completed',
  ]);
  const [created, , added, part, delta] = events;
  expect(created.response).toMatchObject({ status: 'in_progress', output: [], usage: null });
  expect(created.response.created_at).toBeGreaterThan(0);
  expect(added).toMatchObject({ output_index: 0, item: { status: 'in_progress', content: [] } });
  const at = { item_id: added.item.id, output_index: 0, content_index: 0 };
  expect(part).toMatchObject({ ...at, part: { type: 'output_text', text: '' } });
  expect(delta).toMatchObject({ ...at, delta: expect.stringMatching(/^Hel/) });
  const done = events.at(-2);
  const { response } = events.at(-1);
  expect(done.item).toMatchObject({ status: 'completed', content: [{ text: 'Hello' }] });
  expect(response.output).toEqual([done.item]);
  expect(response.created_at).toBe(created.response.created_at);
  expect(response.usage).toMatchObject({ output_tokens: 2, cost_nano_usd: expect.any(Number) });
});

test('reasoning is an item of its own, shown as its text or as its summary', async () => {
  const edge = await open({ scripts: [{ reasoning: ['So', ' it is'], words: ['Yes'] }] });
  const reasoning = { effort: 'high' };
  const plain = await respond(edge, { reasoning });
  const shown = { type: 'reasoning', status: 'completed' };
  expect(plain.output[0]).toMatchObject({
    ...shown,
    summary: [],
    content: [{ type: 'reasoning_text', text: 'So it is' }],
  });
  expect(plain.output[0]).not.toHaveProperty('encrypted_content');
  expect(plain.usage.output_tokens_details).toEqual({ reasoning_tokens: 2 });
  expect(edge.worker.requests[0]?.body).toMatchObject({ reasoning_effort: 'high' });
  const summed = await respond(edge, {
    reasoning: { ...reasoning, summary: 'auto' },
    include: ['reasoning.encrypted_content'],
  });
  expect(summed.output[0]).toEqual({
    ...shown,
    id: expect.stringMatching(/^rs_/),
    summary: [{ type: 'summary_text', text: 'So it is' }],
    encrypted_content: expect.any(String),
  });
  const types = async (body: object) =>
    steps((await eventsOf(edge, body)).map(({ type }) => type.slice('response.'.length))).slice(
      2,
      8,
    );
  expect(await types({ reasoning })).toEqual([
    'output_item.added',
    'content_part.added',
    'reasoning_text.delta',
    'reasoning_text.done',
    'content_part.done',
    'output_item.done',
  ]);
  expect(await types({ reasoning: { summary: 'detailed' } })).toEqual([
    'output_item.added',
    'reasoning_summary_part.added',
    'reasoning_summary_text.delta',
    'reasoning_summary_text.done',
    'reasoning_summary_part.done',
    'output_item.done',
  ]);
  // Clients that store nothing send the item back, and it is read again.
  const { encrypted_content, id, type } = summed.output[0];
  await respond(edge, {
    input: [
      { role: 'user', content: 'Is it?' },
      { type, id, summary: [], encrypted_content },
      { role: 'assistant', content: 'Yes' },
      { role: 'user', content: 'Why?' },
    ],
  });
  expect(edge.worker.requests.at(-1)?.body).toMatchObject({
    messages: [
      { role: 'user' },
      { role: 'assistant', content: 'Yes', reasoning_content: 'So it is' },
      { role: 'user' },
    ],
  });
});

test('a call of a function is an item, and its result goes back as one', async () => {
  const call = { name: 'weather', arguments: '{"city":"Berlin"}' };
  const edge = await open({ scripts: [{ words: [], toolCall: call, finishReason: 'tool_calls' }] });
  const options = { tools: [weather], tool_choice: { type: 'function', name: 'weather' } };
  const answer = await respond(edge, { ...options, parallel_tool_calls: false });
  const [item] = answer.output;
  expect(item).toMatchObject({ type: 'function_call', status: 'completed', ...call });
  expect(answer.tools).toEqual([{ ...weather, strict: false }]);
  const { type, ...description } = weather;
  expect(edge.worker.requests[0]?.body).toMatchObject({
    tools: [{ type, function: description }],
    tool_choice: { type: 'function', function: { name: 'weather' } },
    parallel_tool_calls: false,
  });
  const events = await eventsOf(edge, options);
  expect(events.map((event) => event.type).filter((name) => !name.endsWith('.delta'))).toEqual([
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.function_call_arguments.done',
    'response.output_item.done',
    'response.completed',
  ]);
  const deltas = events.filter((event) => event.type === 'response.function_call_arguments.delta');
  expect(deltas.map(({ delta }) => delta).join('')).toBe(call.arguments);
  const done = events.find((event) => event.type === 'response.function_call_arguments.done');
  expect(done).toMatchObject(call);

  const output = [{ type: 'input_text', text: 'Sunny.' }];
  await respond(edge, {
    input: [
      { role: 'user', content: [{ type: 'input_text', text: 'Weather?' }] },
      item,
      { type: 'function_call_output', call_id: item.call_id, output },
    ],
    tools: [weather],
  });
  expect(edge.worker.requests.at(-1)?.body['messages']).toEqual([
    { role: 'user', content: 'Weather?' },
    {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: item.call_id, type: 'function', function: call }],
    },
    { role: 'tool', tool_call_id: item.call_id, content: 'Sunny.' },
  ]);
});

test('functions outside of allowed_tools are not offered', async () => {
  const edge = await open();
  const time = { type: 'function', name: 'time' };
  const tool_choice = { type: 'allowed_tools', mode: 'required', tools: [time] };
  const answer = await respond(edge, { tools: [weather, time], tool_choice });
  expect(answer.tool_choice).toEqual(tool_choice);
  const { tools, tool_choice: choice } = edge.worker.requests[0]?.body ?? {};
  expect(tools).toEqual([{ type: 'function', function: { name: 'time' } }]);
  expect(choice).toBe('required');
});

test("a format is the worker's, and the answer repeats it", async () => {
  const edge = await open();
  const schema = { type: 'object', properties: { a: { type: 'string' } } };
  const format = { type: 'json_schema', name: 'thing', schema, strict: true };
  const answer = await respond(edge, { text: { format, verbosity: 'medium' } });
  expect(answer.text.format).toEqual(format);
  const body = edge.worker.requests[0]?.body;
  expect(body?.['response_format']).toEqual({
    type: 'json_schema',
    json_schema: { name: 'thing', schema, strict: true },
  });
  await respond(edge, { text: { format: { type: 'json_object' } } });
  expect(edge.worker.requests[1]?.body['response_format']).toEqual({ type: 'json_object' });
  await respond(edge, { text: { format: { type: 'text' } } });
  expect(edge.worker.requests[2]?.body).not.toHaveProperty('response_format');
});

test('an answer that was cut is incomplete, whole and streamed', async () => {
  const edge = await open({ scripts: [{ finishReason: 'length' }] });
  const reason = { reason: 'max_output_tokens' };
  const cut = { status: 'incomplete', incomplete_details: reason, max_output_tokens: 5 };
  const answer = await respond(edge, { max_output_tokens: 5 });
  expect(answer).toMatchObject({ ...cut, output: [{ status: 'incomplete' }] });
  const last = (await eventsOf(edge, { max_output_tokens: 5 })).at(-1);
  expect(last).toMatchObject({ type: 'response.incomplete', response: cut });
});

test('a stream that breaks ends with response.failed, and what was delivered is billed', async () => {
  const edge = await open({ scripts: [{ fault: { kind: 'die', event: 3 } }] });
  const events = await eventsOf(edge, {});
  const { type, response } = events.at(-1);
  expect(type).toBe('response.failed');
  expect(response).toMatchObject({
    status: 'failed',
    error: { code: 'worker_failed' },
    usage: null,
  });
  expect(response.output[0].content[0].text).toBe('Hello');
  expect(edge.settles).toMatchObject([{ outcome: 'failed', usage: { outputText: 2 } }]);
});

test('the same request again under its idempotency key gets the same events, paid once', async () => {
  const edge = await open();
  const headers = { 'idempotency-key': 'k1' };
  const ask = async () => {
    const response = await edge.post('/v1/responses', { ...asked, stream: true }, { headers });
    return response.text();
  };
  const first = await ask();
  expect(await ask()).toBe(first);
  expect(edge.settles).toHaveLength(1);
});

test('long instructions and tools are not repeated in the answer', async () => {
  const edge = await open();
  const instructions = 'long '.repeat(20_000);
  const answer = await respond(edge, { instructions });
  expect(answer).toMatchObject({
    instructions: null,
    tools: [],
    text: { format: { type: 'text' } },
  });
});

test('a prompt is counted and quoted as it would be run', async () => {
  const edge = await open();
  const body = { ...asked, instructions: 'Be brief.', tools: [weather] };
  const counted = await edge.post('/v1/responses/input_tokens', body);
  expect(counted.headers.get('x-sift-token-count')).toBe('exact');
  const { object, input_tokens: tokens } = await counted.json();
  expect(object).toBe('response.input_tokens');
  const answer = await respond(edge, body);
  expect(answer.usage.input_tokens).toBe(tokens);
  const quoted = await (await edge.post('/v1/quote', { ...body, max_output_tokens: 10 })).json();
  expect(quoted).toMatchObject({ object: 'quote', model: testModel, output_tokens_max: 10 });
  expect(quoted.max_cost_nano_usd).toBeGreaterThanOrEqual(answer.usage.cost_nano_usd);
});

test("DeepSeek's path without /v1 is the same route", async () => {
  const edge = await open();
  const response = await edge.post('/responses', asked);
  expect(await response.json()).toMatchObject({ object: 'response', status: 'completed' });
});
