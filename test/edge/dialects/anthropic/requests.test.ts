/** Turning the requests of Anthropic's clients into a worker's, and the fields without effect. */
import { afterEach, expect, test } from 'vitest';
import { chatCompletionRequestSchema } from '../../../../gpu-worker/protocol/requests.ts';
import { startHarness, testModel } from '../../../support/edge/edge-harness.ts';
import type { Harness } from '../../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const user = { role: 'user', content: 'Hello.' };
const claude = { model: testModel, max_tokens: 9, messages: [user] };
const paths = ['/anthropic/v1/messages?beta=true', '/anthropic/v1/messages/count_tokens?beta=true'];

/** The worker's request for each route; a count has no fields of an answer. */
async function sent(body: object): Promise<Record<string, unknown>[]> {
  const { max_tokens: _, ...prompt } = { ...claude, ...body };
  const bodies: Record<string, unknown>[] = [];
  for (const [index, path] of paths.entries()) {
    const asked = index === 0 ? { ...claude, ...body } : prompt;
    const headers = { 'anthropic-beta': 'some-beta-2026-01-01', 'anthropic-version': '2023-06-01' };
    const response = await edge.post(path, asked, { headers });
    expect([response.status, await response.text()]).toMatchObject([200, expect.any(String)]);
    bodies.push({ ...edge.worker.requests.at(-1)?.body });
  }
  expect(chatCompletionRequestSchema.safeParse(bodies[0]).error).toBeUndefined();
  return bodies;
}

const cache = { cache_control: { type: 'ephemeral', ttl: '1h' } };

test('a system message stays in its place among the others', async () => {
  edge = await startHarness();
  const texts = [
    { type: 'text', text: 'Be brief.', ...cache },
    { type: 'text', text: 'Be kind.' },
  ];
  for (const body of await sent({
    system: 'Begin.',
    messages: [
      user,
      { role: 'system', content: 'Date: today.' },
      { role: 'assistant', content: 'Hi.' },
      user,
      { role: 'system', content: [texts[0]] },
      { role: 'system', content: texts },
      { role: 'system', output_config: {} },
    ],
  })) {
    expect(body.messages).toEqual([
      { role: 'system', content: 'Begin.' },
      user,
      { role: 'system', content: 'Date: today.' },
      { role: 'assistant', content: 'Hi.' },
      user,
      { role: 'system', content: 'Be brief.' },
      { role: 'system', content: texts.map(({ type, text }) => ({ type, text })) },
    ]);
  }
});

test('a system message that is cleared at the next user message is shown until then', async () => {
  edge = await startHarness();
  const system = (content: string, clearAt?: string) => ({
    role: 'system',
    content,
    ...(clearAt && { clear_at: clearAt }),
  });
  const messages = [user, system('old', 'next_user_message'), system('kept', 'never'), user];
  for (const body of await sent({ messages: [...messages, system('new', 'next_user_message')] })) {
    expect(body.messages).toEqual([user, system('kept'), user, system('new')]);
  }
});

const tool = (name: string) => ({ name, input_schema: { type: 'object' } });
const asked = (name: string) => ({
  type: 'function',
  function: { name, parameters: { type: 'object' } },
});
const reference = (name: string) => ({ type: 'tool_reference', name });

test('system messages add and remove tools, and set the effort', async () => {
  edge = await startHarness();
  const definition = { type: 'tool_definition', definition: tool('c') };
  for (const body of await sent({
    tools: [tool('a'), tool('b')],
    messages: [
      user,
      {
        role: 'system',
        content: [
          { type: 'tool_removal', tool: reference('a') },
          { type: 'tool_removal', tool: reference('b') },
          { type: 'tool_addition', tool: definition, ...cache },
        ],
        output_config: { effort: 'low' },
      },
      user,
      { role: 'system', content: [{ type: 'tool_addition', tool: reference('a') }] },
    ],
    output_config: { effort: 'max' },
  })) {
    expect(body).toMatchObject({ tools: [asked('a'), asked('c')], reasoning_effort: 'low' });
    expect(body.messages).toEqual([user, user]);
  }
});

test.each([
  { context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] } },
  { context_management: { edits: [{ type: 'clear_tool_uses_20250919' }] } },
  { context_management: {} },
  { cache_control: { type: 'ephemeral' } },
  { speed: 'fast' },
  { betas: ['b-2026-01-01'] },
  { user_profile_id: 'u' },
  { mcp_servers: [{ type: 'url', name: 'm', url: 'https://m.example' }] },
  { billing_policy: { type: 'billing_policy', bill_to: 'self' } },
  { output_config: { task_budget: { type: 'tokens', total: 9 } } },
  { thread: null, compaction: null, workspace_id: null, inference_geo: null },
])('%j has no effect on an answer or a count', async (field) => {
  edge = await startHarness();
  const plain = await sent({});
  expect(await sent(field)).toEqual(plain);
});

test.each([
  { container: { id: 'c', skills: [] } },
  { diagnostics: { previous_message_id: null } },
  { fallbacks: 'default' },
  { fallbacks: [{ model: 'other' }] },
  { fallback_credit_token: { token: 't', mode: 'strict' } },
  { metadata: { user_id: 'u' } },
  { service_tier: 'auto' },
])('%j has no effect on an answer', async (field) => {
  edge = await startHarness();
  const bodies: unknown[] = [];
  for (const body of [claude, { ...claude, ...field }]) {
    const response = await edge.post('/anthropic/v1/messages', body);
    expect(response.status).toBe(200);
    await response.text();
    bodies.push(edge.worker.requests.at(-1)?.body);
  }
  expect(bodies[1]).toEqual(bodies[0]);
});

test('hints about tools have no effect; what would change who calls them is refused', async () => {
  edge = await startHarness();
  const hints = {
    type: 'custom',
    eager_input_streaming: true,
    defer_loading: true,
    input_examples: [{ city: 'Rom' }],
    allowed_callers: ['direct', 'code_execution_20260120'],
    ...cache,
  };
  for (const body of await sent({ tools: [{ ...tool('a'), ...hints }] })) {
    expect(body.tools).toEqual([asked('a')]);
  }
  for (const [more, words] of [
    [{ allowed_callers: ['code_execution_20260120'] }, "'tools[0].allowed_callers'"],
    [{ type: 'web_search_20250305' }, 'no tools but those that the request describes'],
  ] as const) {
    const body = { ...claude, tools: [{ ...tool('a'), ...more }] };
    const response = await edge.post('/anthropic/v1/messages', body);
    expect(response.status).toBe(422);
    expect((await response.json()).error.message).toContain(words);
  }
});

test('the older name of a format is the format', async () => {
  edge = await startHarness();
  const format = { type: 'json_schema', schema: { type: 'object' } };
  const [older] = await sent({ output_format: format });
  const [newer] = await sent({ output_config: { format } });
  expect(older).toHaveProperty('response_format');
  expect(older).toEqual(newer);
  const both = { ...claude, output_format: format, output_config: { format } };
  const response = await edge.post('/anthropic/v1/messages', both);
  expect(response.status).toBe(422);
  expect((await response.json()).error.message).toContain("'output_format'");
});

test.each([
  [{ type: 'adaptive', display: 'omitted', block_binding: {} }, 'adaptive'],
  [{ type: 'enabled', budget_tokens: 1024, display: 'updates' }, 'enabled'],
  [{ type: 'between_tools' }, 'disabled'],
  [{ type: 'disabled' }, 'disabled'],
])('thinking of %j is %s for the worker', async (thinking, type) => {
  edge = await startHarness();
  for (const body of await sent({ thinking })) expect(body.thinking).toEqual({ type });
});

test('an effort asks for thinking as far as the model has a mode of it', async () => {
  edge = await startHarness();
  const output_config = { effort: 'low' };
  for (const body of await sent({ output_config })) {
    expect(body).toMatchObject({ thinking: { type: 'adaptive' }, reasoning_effort: 'low' });
  }
  for (const body of await sent({ output_config, thinking: { type: 'disabled' } })) {
    expect(body).toMatchObject({ thinking: { type: 'disabled' } });
  }
});

test('thinking that is to be omitted is an empty block, whole and streamed', async () => {
  edge = await startHarness({ scripts: [{ reasoning: ['hm', 'm'], words: ['Hi'] }] });
  const body = { ...claude, thinking: { type: 'adaptive', display: 'omitted' } };
  const whole = await edge.post('/anthropic/v1/messages', body);
  expect((await whole.json()).content).toEqual([
    { type: 'thinking', thinking: '', signature: '' },
    { type: 'text', text: 'Hi' },
  ]);
  const stream = await edge.post('/anthropic/v1/messages', { ...body, stream: true });
  const text = await stream.text();
  expect(text).toContain('"content_block":{"type":"thinking","thinking":"","signature":""}');
  expect(text).not.toContain('thinking_delta');
});

test.each([
  ['no', 'Error: no'],
  ['', 'Error'],
  [undefined, 'Error'],
  [null, 'Error'],
  [[], 'Error'],
  [[{ type: 'text', text: 'no' }], 'Error: no'],
  [
    [
      { type: 'text', text: 'no' },
      { type: 'text', text: 'never' },
    ],
    [
      { type: 'text', text: 'Error: no' },
      { type: 'text', text: 'never' },
    ],
  ],
  [[{ type: 'tool_reference', tool_name: 'weather' }], 'Error: The tool weather is available.'],
])('a result %j of a tool that failed says so', async (content, told) => {
  edge = await startHarness();
  const call = { type: 'tool_use', id: 't1', name: 'a', input: {} };
  const result = { type: 'tool_result', tool_use_id: 't1', content, is_error: true };
  for (const body of await sent({
    messages: [user, { role: 'assistant', content: [call] }, { role: 'user', content: [result] }],
  })) {
    const messages = Array.isArray(body.messages) ? body.messages : [];
    expect(messages.at(-1)).toEqual({ role: 'tool', tool_call_id: 't1', content: told });
  }
});

test('documents of text and results of searches are read as text, by the user and by tools', async () => {
  edge = await startHarness();
  const citations = { enabled: true };
  const source = { type: 'text', media_type: 'text/plain', data: 'It is wet.' };
  const document = { type: 'document', source, title: 'The sea', citations, ...cache };
  const found = {
    type: 'search_result',
    source: 'https://sea.example',
    title: 'Waves',
    content: [{ type: 'text', text: 'They roll.' }],
    citations,
  };
  const call = { type: 'tool_use', id: 't1', name: 'a', input: {} };
  const result = { type: 'tool_result', tool_use_id: 't1', content: [document] };
  for (const body of await sent({
    messages: [
      { role: 'user', content: [document, found] },
      { role: 'assistant', content: [call] },
      { role: 'user', content: [result] },
    ],
  })) {
    expect(body.messages).toMatchObject([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'The sea\nIt is wet.' },
          { type: 'text', text: 'Waves\nhttps://sea.example\nThey roll.' },
        ],
      },
      { role: 'assistant' },
      { role: 'tool', content: 'The sea\nIt is wet.' },
    ]);
  }
  const pdf = { type: 'document', source: { type: 'url', url: 'https://sea.example/x.pdf' } };
  const body = { ...claude, messages: [{ role: 'user', content: [pdf] }] };
  const response = await edge.post('/anthropic/v1/messages', body);
  expect(response.status).toBe(422);
  expect((await response.json()).error.message).toContain('the model reads text only');
});

const long = 'n'.repeat(128);

test('names of tools have up to 128 characters, wherever they stand', async () => {
  edge = await startHarness();
  for (const name of ['n'.repeat(65), long]) {
    const call = (type: string) => ({ type, id: 't1', name, input: {} });
    for (const body of await sent({
      tools: [tool(name)],
      tool_choice: { type: 'tool', name },
      messages: [
        user,
        { role: 'assistant', content: [call('tool_use'), call('server_tool_use')] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't1' }] },
      ],
    })) {
      expect(body).toMatchObject({ tools: [asked(name)] });
    }
  }
  const tooLong = `${long}n`;
  const call = { type: 'tool_use', id: 't1', name: tooLong, input: {} };
  for (const [fields, param] of [
    [{ tools: [tool(tooLong)] }, 'tools[0].name'],
    [{ tools: [tool('a')], tool_choice: { type: 'tool', name: tooLong } }, 'tool_choice.name'],
    [{ messages: [user, { role: 'assistant', content: [call] }] }, 'messages[1].content[0].name'],
  ] as const) {
    const response = await edge.post('/anthropic/v1/messages', { ...claude, ...fields });
    expect(response.status).toBe(422);
    expect((await response.json()).error.message).toContain(`'${param}'`);
  }
});

test('a thread is refused by the code that makes clients go on without, before all else', async () => {
  edge = await startHarness();
  for (const thread of [{ type: 'create' }, { type: 'continue', previous_message_id: 'msg_1' }]) {
    const body = { ...claude, messages: [], thread };
    const response = await edge.post('/anthropic/v1/messages?beta=true', body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      type: 'error',
      error: {
        type: 'invalid_request_error',
        details: { error_code: 'thread_unsupported_request' },
      },
    });
  }
});

test('users of one account share its prefixes; those of chat completions need not', async () => {
  edge = await startHarness();
  const saltOf = async (path: string, body: object) => {
    const response = await edge.post(path, body);
    expect(response.status).toBe(200);
    await response.text();
    return edge.worker.requests.at(-1)?.body.cache_salt;
  };
  const message = (id: string) =>
    saltOf('/anthropic/v1/messages', { ...claude, metadata: { user_id: id } });
  const chat = (fields: object) =>
    saltOf('/v1/chat/completions', { model: testModel, messages: [user], ...fields });
  const shared = await chat({});
  for (const id of ['user_1_session_a', 'user_1_session_b', '["u9","s9"]']) {
    expect(await message(id)).toBe(shared);
  }
  const scopes = [
    { user_id: 'u9' },
    { cache_salt: 's9' },
    { cache_salt: 'u9' },
    { user_id: 'u9', cache_salt: 's9' },
    { cache_salt: '["u9","s9"]' },
    { cache_salt: '[null,null]' },
  ];
  const salts = [shared];
  for (const scope of scopes) salts.push(await chat(scope));
  expect(new Set(salts).size).toBe(scopes.length + 1);
});
