/** Usage says in every dialect why the rest of a prompt was not cached; a quote says it before. */
import { afterEach, describe, expect, test } from 'vitest';
import { dataOf, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

/** Text of which no two pieces are alike. */
const textOf = (name: string, characters: number): string =>
  Array.from({ length: Math.ceil(characters / 16) }, (_, index) =>
    `${name} ${index} and so on`.padEnd(16).slice(0, 16),
  )
    .join('')
    .slice(0, characters);
const system = textOf('rule', 3_000);

type Message = { readonly role: string; readonly content: string };
const messages = (...texts: string[]): Message[] =>
  [system, ...texts].map((content, index) => ({
    role: index === 0 ? 'system' : index % 2 === 1 ? 'user' : 'assistant',
    content,
  }));

async function ask(list: readonly Message[], more: object = {}) {
  const body = { model: testModel, max_tokens: 10, messages: list, ...more };
  const response = await edge.post('/v1/chat/completions', body);
  expect(response.status).toBe(200);
  const { usage } = await response.json();
  await edge.idle();
  return usage;
}

test('a prompt like none before it begins a new conversation', async () => {
  edge = await startHarness();
  const usage = await ask(messages('Hello.'));
  expect(usage.cache_miss_reason).toEqual({ type: 'new_conversation' });
});

test('the first message that was changed is named, and where in it', async () => {
  edge = await startHarness();
  await ask(messages('Who are you, and what do you do all day?'));
  const changed = `${system.slice(0, 1_000)}#${system.slice(1_001)}`;
  const [, ...rest] = messages('Who are you, and what do you do all day?');
  const usage = await ask([{ role: 'system', content: changed }, ...rest]);
  expect(usage.cache_miss_reason).toEqual({
    type: 'first_difference',
    part: 'message',
    message: 0,
    character: 960,
    character_end: 1_024,
  });
});

test('another question about the same rules differs in its own message', async () => {
  edge = await startHarness();
  await ask(messages(textOf('first', 800)));
  const usage = await ask(messages(textOf('second', 800)));
  expect(usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(500);
  expect(usage.cache_miss_reason).toMatchObject({
    type: 'first_difference',
    message: 1,
    character: 0,
  });
});

test('a conversation that goes on misses its new messages alone', async () => {
  edge = await startHarness();
  await ask(messages('Hello.'));
  const usage = await ask(messages('Hello.', 'Hi!', textOf('question', 1_000)));
  expect(usage.cache_miss_reason).toMatchObject({ type: 'new_messages', message: 2, character: 0 });
});

test('tools that were changed are named', async () => {
  edge = await startHarness();
  const tool = (description: string) => ({
    tools: [{ type: 'function', function: { name: 'look', description, parameters: {} } }],
  });
  await ask(messages('Hello.'), tool(`${'a'.repeat(200)}1`));
  // The stub's own cache does not look at tools.
  edge.worker.script = { ...edge.worker.script, cachedTokens: 0 };
  const usage = await ask(messages('Hello.'), tool(`${'a'.repeat(200)}2`));
  expect(usage.cache_miss_reason).toMatchObject({
    type: 'first_difference',
    part: 'tools',
    message: null,
  });
});

test('a prompt of no more than a block is too short, and one that is cached has no reason', async () => {
  edge = await startHarness();
  const short = await ask([{ role: 'user', content: 'Hello.' }]);
  expect(short.cache_miss_reason).toEqual({ type: 'too_short' });
  await ask(messages('Hello.'));
  const again = await ask(messages('Hello.'));
  expect(again.prompt_tokens_details.cached_tokens).toBeGreaterThan(0);
  expect(again.cache_miss_reason).toBeNull();
});

test.each([
  ['a long prompt', 3_000],
  ['one that the index has no chunk of', 1_200],
])('%s that its worker has no more was evicted', async (_, characters) => {
  edge = await startHarness();
  const list = [{ role: 'user', content: textOf('rule', characters) }];
  await ask(list);
  edge.worker.script = { ...edge.worker.script, cachedTokens: 0 };
  expect((await ask(list)).cache_miss_reason).toEqual({ type: 'evicted' });
});

test.each([
  ['a long prompt', 3_000],
  ['one that the index has no chunk of', 1_200],
])('%s that another worker has is told so', async (_, characters) => {
  edge = await startHarness({ scripts: [{}, {}], slots: 1 });
  const list = [{ role: 'user', content: textOf('rule', characters) }];
  await ask(list);
  // The worker that has it is taken out, and the other one is asked.
  const [had] = edge.settles.map(({ worker }) => worker);
  const index = had === 'worker-0' ? 0 : 1;
  const worker = edge.workers[index];
  if (worker) worker.script = { ...worker.script, fault: { kind: 'status', status: 503 } };
  expect((await ask(list)).cache_miss_reason).toEqual({ type: 'other_worker' });
});

test('an engine that does not state cached tokens has no reason', async () => {
  edge = await startHarness({ reportsCachedTokens: false });
  expect((await ask(messages('Hello.'))).cache_miss_reason).toBeNull();
});

test('what was cached by a prompt that is not remembered is not explained', async () => {
  edge = await startHarness({ scripts: [{ cachedTokens: 320 }] });
  expect((await ask(messages('Hello.'))).cache_miss_reason).toEqual({ type: 'unknown' });
});

test('prompts of another account, user and model are not compared', async () => {
  edge = await startHarness();
  await ask(messages('Hello.'));
  const other = await edge.addTenant('other');
  const response = await edge.post(
    '/v1/chat/completions',
    { model: testModel, messages: messages('Hello.') },
    { headers: { authorization: `Bearer ${other}` } },
  );
  const { usage } = await response.json();
  expect(usage.cache_miss_reason).toEqual({ type: 'new_conversation' });
  const user = await ask(messages('Hello.'), { user_id: 'somebody' });
  expect(user.cache_miss_reason).toEqual({ type: 'new_conversation' });
});

test('a request that failed is not remembered', async () => {
  edge = await startHarness({ scripts: [{ fault: { kind: 'status', status: 503 } }] });
  const body = { model: testModel, messages: messages('Hello.') };
  expect((await edge.post('/v1/chat/completions', body)).status).toBe(503);
  await edge.idle();
  edge.worker.script = { ...edge.worker.script, fault: null };
  edge.advance(2_000);
  // The index has promised it since its placement, and nothing more is known.
  expect((await ask(messages('Hello.'))).cache_miss_reason).toEqual({ type: 'unknown' });
});

describe('every dialect states it, whole and streamed', () => {
  const question = textOf('question', 800);
  const bodies = {
    '/v1/chat/completions': { messages: [{ role: 'user', content: question }] },
    '/v1/completions': { prompt: question },
    '/anthropic/v1/messages': { messages: [{ role: 'user', content: question }], max_tokens: 9 },
    '/v1/responses': { input: question },
  } as const;

  test.each(Object.keys(bodies) as (keyof typeof bodies)[])('%s', async (path) => {
    edge = await startHarness();
    const body = { model: testModel, ...bodies[path] };
    const whole = await (await edge.post(path, body)).json();
    expect(whole.usage.cache_miss_reason).toEqual({ type: 'new_conversation' });
    await edge.idle();
    edge.worker.script = { ...edge.worker.script, cachedTokens: 0 };
    const options = path.includes('completions') && { stream_options: { include_usage: true } };
    const stream = await (await edge.post(path, { ...body, stream: true, ...options })).text();
    const last = dataOf(stream).findLast((data) => data.includes('cost_nano_usd')) ?? '{}';
    const event = JSON.parse(last);
    expect((event.usage ?? event.response.usage).cache_miss_reason).toEqual({ type: 'evicted' });
    await edge.idle();
    const reasons = (await edge.tenant.entries({ afterId: 0, limit: 9 }))
      .filter(({ kind }) => kind === 'posted')
      .map((entry) => entry.cacheMissReason);
    expect(reasons).toEqual(['{"type":"new_conversation"}', '{"type":"evicted"}']);
  });

  test('several prompts at once have none', async () => {
    edge = await startHarness();
    const body = { model: testModel, prompt: [question, question] };
    const { usage } = await (await edge.post('/v1/completions', body)).json();
    expect(usage.cache_miss_reason).toBeNull();
  });
});

describe('a quote tells it before', () => {
  const quote = async (list: readonly Message[]) => {
    const response = await edge.post('/v1/quote', { model: testModel, messages: list });
    return (await response.json()).cache_miss_reason;
  };

  test('as the answer then does', async () => {
    edge = await startHarness();
    const first = messages('Hello.');
    const further = messages('Hello.', 'Hi!', textOf('question', 1_000));
    expect(await quote(first)).toEqual({ type: 'new_conversation' });
    await ask(first);
    expect(await quote(further)).toMatchObject({ type: 'new_messages', message: 2 });
    expect((await ask(further)).cache_miss_reason).toMatchObject({
      type: 'new_messages',
      message: 2,
    });
    const changed = messages('Hello.').map((each, index) =>
      index === 0 ? { ...each, content: each.content.replace('rule 40', 'RULE 40') } : each,
    );
    const told = await quote(changed);
    expect(told).toMatchObject({ type: 'first_difference', message: 0 });
    expect((await ask(changed)).cache_miss_reason).toEqual(told);
    expect(await quote([{ role: 'user', content: 'Hi.' }])).toEqual({ type: 'too_short' });
  });

  test('and knows short prompts without the index', async () => {
    edge = await startHarness();
    const list = [{ role: 'user', content: textOf('rule', 1_200) }];
    await ask(list);
    expect(await quote(list)).toBeNull();
    const more = [{ role: 'user', content: `${textOf('rule', 1_200)}${textOf('more', 900)}` }];
    expect(await quote(more)).toMatchObject({ type: 'first_difference', message: 0 });
  });

  test('and when the index has forgotten it since', async () => {
    edge = await startHarness();
    const list = [{ role: 'user', content: textOf('rule', 9_000) }];
    await ask(list);
    edge.advance(4 * 3_600_000);
    expect(await quote(list)).toEqual({ type: 'evicted' });
  });
});
