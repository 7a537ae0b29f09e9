/**
 * A request with an Idempotency-Key outlives its client; whoever asks again reads along, paid once.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { sleep, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import type { StubScript } from '../../support/edge/edge-stub-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

const words = Array.from({ length: 40 }, (_, index) => ` ${index}`);
const slow: Partial<StubScript> = { words, pauseMs: 5 };
/** Goes on until it is stopped. */
const endless: Partial<StubScript> = { words, fault: { kind: 'stall', event: 10 } };
const key = { 'idempotency-key': 'order-66' };
const routes = {
  chat: '/v1/chat/completions',
  text: '/v1/completions',
  messages: '/anthropic/v1/messages',
  responses: '/v1/responses',
} as const;
type Route = keyof typeof routes;
const messages = [{ role: 'user', content: 'Go.' }];
const prompts = {
  chat: { messages },
  text: { prompt: 'Go.' },
  messages: { messages },
  responses: { input: 'Go.' },
} as const;
const bodyOf = (route: Route, stream: boolean) => ({
  model: testModel,
  stream,
  ...(route === 'responses' ? { max_output_tokens: 100 } : { max_tokens: 100 }),
  ...prompts[route],
});

const ask = (
  route: Route,
  stream: boolean,
  more: { headers?: Record<string, string>; signal?: AbortSignal } = {},
) =>
  edge.post(routes[route], bodyOf(route, stream), {
    ...more,
    headers: { ...key, ...more.headers },
  });

/** Asks, and loses the connection once the worker has made something. */
async function askAndLeave(route: Route, stream: boolean): Promise<void> {
  const leave = new AbortController();
  const answer = ask(route, stream, { signal: leave.signal });
  await expect.poll(() => output()).toBeGreaterThan(3);
  leave.abort();
  const response = await answer;
  await response.body?.cancel();
}

const output = () => [...edge.worker.records.values()][0]?.output ?? 0;
const status = () => [...edge.worker.records.values()][0]?.status;

/** Checks that the worker was asked and paid for one answer, however many clients asked for it. */
async function expectPaidOnce(outcome: 'done' | 'aborted' | 'failed' = 'done'): Promise<void> {
  await edge.idle();
  expect(edge.worker.requests).toHaveLength(1);
  expect(edge.settles.map((each) => each.outcome)).toEqual([outcome]);
  expect((await edge.tenant.balance()).held).toBe(0);
  const entries = await edge.tenant.entries({ afterId: 0, limit: 100 });
  expect(entries.map((entry) => entry.kind)).toEqual(['credit', 'pending', 'posted']);
}

describe.each(Object.keys(routes) as Route[])('on %s', (route) => {
  test.each([true, false])(
    'a client that lost its connection gets the answer (streamed: %s) by asking again',
    async (stream) => {
      edge = await startHarness({ scripts: [slow] });
      await askAndLeave(route, stream);
      const [again, also] = await Promise.all([ask(route, stream), ask(route, stream)]);
      expect(again.status).toBe(200);
      expect(again.headers.get('idempotent-replayed')).toBe('true');
      const text = await again.text();
      expect(await also.text()).toBe(text);
      expect(text).toContain('39');
      await expectPaidOnce();
      const stored = await ask(route, stream);
      expect(await stored.text()).toBe(text);
      expect(stored.headers.get('content-type')).toBe(again.headers.get('content-type'));
    },
  );

  test('a stream goes on after the last event that its client has, running or stored', async () => {
    edge = await startHarness({ scripts: [slow] });
    const first = ask(route, true).then((response) => response.text());
    await expect.poll(() => output()).toBeGreaterThan(5);
    const after = { headers: { 'last-event-id': '4' } };
    const rest = await (await ask(route, true, after)).text();
    const whole = await first;
    expect(rest).toMatch(/^id: 5\n/);
    expect(whole.endsWith(rest)).toBe(true);
    expect(whole.slice(0, -rest.length).match(/^id: \d+$/gm)).toHaveLength(4);
    expect(await (await ask(route, true, after)).text()).toBe(rest);
    await expectPaidOnce();
  });
});

test('events are numbered from 1 without a gap, and only under a key', async () => {
  edge = await startHarness({ scripts: [{ ...slow, pauseMs: 60 }], settings: { keepAliveMs: 20 } });
  const text = await (await ask('chat', true)).text();
  const frames = text.split('\n\n').slice(0, -1);
  const events = frames.filter((frame) => frame !== ': keep-alive');
  expect(events.length).toBeLessThan(frames.length);
  expect(events.map((event) => event.split('\n')[0])).toEqual(
    events.map((_, index) => `id: ${index + 1}`),
  );
  expect(events.at(-1)).toMatch(/^id: \d+\ndata: \[DONE\]$/);
  const plain = await edge.post(routes.chat, bodyOf('chat', true));
  expect(await plain.text()).not.toContain('id: ');
});

test('a client that leaves an attached stream, or reads none of it, stops neither it nor the others', async () => {
  edge = await startHarness({ scripts: [slow] });
  const first = await ask('chat', true);
  const leaving = await ask('chat', true);
  const idle = await ask('chat', true);
  await leaving.body?.getReader().read();
  await leaving.body?.cancel().catch(() => {});
  const leave = new AbortController();
  await ask('chat', true, { signal: leave.signal });
  leave.abort();
  expect(await first.text()).toContain('[DONE]');
  await expectPaidOnce();
  expect(await idle.text()).toContain('[DONE]');
});

test('nobody comes back: the answer is made to its end, kept, and paid once', async () => {
  edge = await startHarness({ scripts: [slow] });
  await askAndLeave('chat', true);
  await expectPaidOnce();
  expect(await (await ask('chat', true)).text()).toContain('[DONE]');
  expect(edge.worker.requests).toHaveLength(1);
});

test.each([true, false])(
  'an answer (streamed: %s) that nobody waits for ends after its time, billed for what was made',
  async (stream) => {
    edge = await startHarness({ scripts: [endless], runOnMs: 100 });
    await askAndLeave('chat', stream);
    await expect.poll(() => status()).toBe('aborted');
    await expectPaidOnce('aborted');
    const again = await ask('chat', stream);
    expect(again.status).toBe(409);
    expect((await again.json()).error.code).toBe('idempotency_no_answer');
  },
);

test('an answer that nobody waits for ends after its tokens, too', async () => {
  const many = Array.from({ length: 5_000 }, (_, index) => ` ${index}`);
  edge = await startHarness({ scripts: [{ words: many, pauseMs: 5 }], runOnTokens: 20 });
  await askAndLeave('chat', true);
  await expect.poll(() => status()).toBe('aborted');
  expect(output()).toBeLessThan(many.length);
  await expectPaidOnce('aborted');
});

test('whoever attaches keeps the answer from ending', async () => {
  edge = await startHarness({ scripts: [{ ...slow, pauseMs: 100 }], runOnMs: 3_000 });
  await askAndLeave('chat', true);
  expect(await (await ask('chat', true)).text()).toContain('[DONE]');
  await expectPaidOnce();
});

test('a running-on time of 0 ends an answer with its last client', async () => {
  edge = await startHarness({ scripts: [endless], runOnMs: 0 });
  await askAndLeave('chat', true);
  await expect.poll(() => status()).toBe('aborted');
  await expectPaidOnce('aborted');
});

test('an answer that nobody waits for is still held, and counts against the limit of its tenant', async () => {
  edge = await startHarness({ scripts: [endless], limits: { concurrentRequests: 1 } });
  await askAndLeave('chat', true);
  const other = { 'idempotency-key': 'order-67' };
  expect((await ask('chat', true, { headers: other })).status).toBe(429);
  expect((await edge.tenant.balance()).held).toBeGreaterThan(0);
  // The same key asks for no second answer.
  expect((await ask('chat', true)).status).toBe(200);
});

test('what went wrong before the first event is told to all who wait, and the key is free again', async () => {
  const fault = { kind: 'status', status: 503 } as const;
  edge = await startHarness({ scripts: [{ ...slow, fault }] });
  const answers = await Promise.all([ask('chat', true), ask('chat', true), ask('chat', true)]);
  expect(answers.map((answer) => answer.status)).toEqual([503, 503, 503]);
  edge.worker.script = { ...edge.worker.script, fault: null };
  edge.advance(2_000);
  expect(await (await ask('chat', true)).text()).toContain('[DONE]');
});

test('a stream that breaks tells all who read it, to the byte, and is billed once', async () => {
  edge = await startHarness({ scripts: [{ ...slow, fault: { kind: 'garbage', event: 9 } }] });
  const answers = await Promise.all([ask('messages', true), ask('messages', true)]);
  const [one, two] = await Promise.all(answers.map((answer) => answer.text()));
  expect(one).toContain('event: error');
  expect(two).toBe(one);
  await expectPaidOnce('failed');
  expect(await (await ask('messages', true)).text()).toBe(one);
});

test('an attached whole answer sends empty lines while it waits, and the same answer', async () => {
  edge = await startHarness({
    scripts: [slow],
    settings: { keepAliveMs: 10, wholeAnswerQuietMs: 20 },
  });
  const [first, second] = await Promise.all([ask('chat', false), ask('chat', false)]);
  const texts = await Promise.all([first?.text(), second?.text()]);
  expect(texts[1]).toMatch(/^\n+\{/);
  expect(JSON.parse(texts[1] ?? '')).toEqual(JSON.parse(texts[0] ?? ''));
  await expectPaidOnce();
});

test('another body or route under the key of a running answer is 422', async () => {
  edge = await startHarness({ scripts: [slow] });
  const first = await ask('chat', true);
  const path = routes.chat;
  const other = { ...bodyOf('chat', true), temperature: 0 };
  expect((await edge.post(path, other, { headers: key })).status).toBe(422);
  expect(
    (await edge.post('/chat/completions', bodyOf('chat', true), { headers: key })).status,
  ).toBe(422);
  expect((await ask('chat', false)).status).toBe(422);
  await first.text();
});

test.each(['-1', 'x', '1.5', '1e3', '99999999999999999999'])(
  'a Last-Event-ID of %s is refused',
  async (id) => {
    edge = await startHarness();
    const refused = await ask('chat', true, { headers: { 'last-event-id': id } });
    expect(refused.status).toBe(422);
    expect((await refused.json()).error.param).toBe('Last-Event-ID');
    // It is no matter of requests that do not stream, or have no key.
    const whole = await ask('chat', false, { headers: { 'last-event-id': id } });
    expect(whole.status).toBe(200);
  },
);

test('an event that the answer does not have is refused: unknown, running and stored', async () => {
  edge = await startHarness({ scripts: [slow] });
  const after = { headers: { 'last-event-id': '900' } };
  expect((await ask('chat', true, after)).status).toBe(422);
  expect(edge.worker.requests).toHaveLength(0);
  const first = ask('chat', true);
  await expect.poll(() => output()).toBeGreaterThan(3);
  expect((await ask('chat', true, after)).status).toBe(422);
  const text = await (await first).text();
  expect((await ask('chat', true, after)).status).toBe(422);
  const last = { headers: { 'last-event-id': String(text.match(/^id: /gm)?.length) } };
  expect(await (await ask('chat', true, last)).text()).toBe('');
});

test('a stream too long to keep is given to all who read along; later the key says why not', async () => {
  const long = Array.from({ length: 300 }, () => 'x'.repeat(5_000));
  edge = await startHarness({ scripts: [{ words: long, pauseMs: 1 }] });
  const first = await ask('chat', true);
  const attached = await ask('chat', true);
  const [one, two] = await Promise.all([first.text(), attached.text()]);
  expect(one).toContain('[DONE]');
  expect(two).toBe(one);
  await edge.idle();
  const again = await ask('chat', true);
  expect(again.status).toBe(409);
  expect((await again.json()).error.message).toContain('too long');
  await expectPaidOnce();
});

test('a client that reads slowly slows the worker down, also under a key', async () => {
  const many = Array.from({ length: 24_000 }, () => 'x'.repeat(1_000));
  edge = await startHarness({ scripts: [{ words: many }] });
  const body = { ...bodyOf('chat', true), max_tokens: many.length };
  const reader = (await edge.post(routes.chat, body, { headers: key })).body?.getReader();
  await reader?.read();
  let before = -1;
  while (before !== output()) {
    before = output();
    await sleep(500);
  }
  expect(before).toBeLessThan(many.length);
  await reader?.cancel();
  await expect.poll(() => output()).toBe(many.length);
  await edge.idle();
});

test('a client that reads none of a long stream holds up no other one', async () => {
  const many = Array.from({ length: 24_000 }, () => 'x'.repeat(1_000));
  edge = await startHarness({ scripts: [{ words: many }] });
  const body = { ...bodyOf('chat', true), max_tokens: many.length };
  const first = await edge.post(routes.chat, body, { headers: key });
  const idle = (await edge.post(routes.chat, body, { headers: key })).body?.getReader();
  await idle?.read();
  expect(await first.text()).toContain('[DONE]');
  const decoder = new TextDecoder();
  let last = '';
  for (;;) {
    const { done, value } = (await idle?.read()) ?? { done: true, value: undefined };
    if (done) break;
    last = decoder.decode(value, { stream: true });
  }
  expect(last).toContain('so much more slowly');
  await edge.idle();
});

test('only so many clients attach to one answer', async () => {
  edge = await startHarness({ scripts: [endless] });
  const answers = await Promise.all(Array.from({ length: 70 }, () => ask('chat', true)));
  const refused = answers.filter((answer) => answer.status === 409);
  expect(refused).toHaveLength(6);
  expect(refused[0]?.headers.get('retry-after')).toBe('1');
  expect(edge.worker.requests).toHaveLength(1);
});

describe('an answer that was lost with its process', () => {
  /** Leaves what a crash leaves: the hold is open, and nobody makes the answer. */
  const lose = async (stage: 'before placement' | 'after it'): Promise<void> => {
    const { settle } = edge.tenant;
    const { place } = edge.services.fleet;
    edge.tenant.settle = () => Promise.reject(new Error('the power is off'));
    if (stage === 'before placement') {
      edge.services.fleet.place = () => Promise.reject(new Error('the power is off'));
    }
    await (await ask('chat', true)).text();
    await edge.idle();
    Object.assign(edge.tenant, { settle });
    Object.assign(edge.services.fleet, { place });
    expect((await edge.tenant.balance()).held).toBeGreaterThan(0);
  };

  test('is made again by the next request when it had cost nothing', async () => {
    edge = await startHarness({ scripts: [slow] });
    await lose('before placement');
    expect(await (await ask('chat', true)).text()).toContain('[DONE]');
    await edge.idle();
    const entries = await edge.tenant.entries({ afterId: 0, limit: 100 });
    expect(entries.map((entry) => entry.kind)).toEqual([
      'credit',
      'pending',
      'voided',
      'pending',
      'posted',
    ]);
  });

  test('is billed by the journal of its worker, and the key says so', async () => {
    edge = await startHarness({ scripts: [slow] });
    await lose('after it');
    const again = await ask('chat', true);
    expect(again.status).toBe(409);
    expect((await again.json()).error.code).toBe('idempotency_no_answer');
    expect((await edge.tenant.balance()).held).toBe(0);
    expect((await edge.tenant.entries({ afterId: 0, limit: 9 })).at(-1)?.kind).toBe('posted');
  });

  test('is made again where its engine keeps no journal', async () => {
    edge = await startHarness({ scripts: [slow], hasJournal: false });
    await lose('after it');
    expect(await (await ask('chat', true)).text()).toContain('[DONE]');
  });

  test('is waited for while its worker may be at it', async () => {
    edge = await startHarness({ scripts: [slow] });
    await lose('after it');
    for (const record of edge.worker.records.values()) record.status = 'running';
    const again = await ask('chat', true);
    expect(again.status).toBe(409);
    expect((await again.json()).error.code).toBe('idempotency_key_in_use');
    expect(again.headers.get('retry-after')).toBe('1');
  });
});

test('an answer that is being stopped is not taken for lost', async () => {
  edge = await startHarness({ scripts: [endless], hasJournal: false, runOnMs: 0 });
  const { settle } = edge.tenant;
  const { promise: open, resolve: settleNow } = Promise.withResolvers<void>();
  Object.assign(edge.tenant, {
    settle: async (input: Parameters<typeof settle>[0]) => {
      await open;
      return settle(input);
    },
  });
  const reader = (await ask('chat', true)).body?.getReader();
  // A client pays for what it has had, also where no journal can be asked.
  await reader?.read();
  await reader?.cancel();
  await expect.poll(() => status()).toBe('aborted');
  const again = await ask('chat', true);
  expect(again.status).toBe(409);
  expect((await again.json()).error.code).toBe('idempotency_key_in_use');
  settleNow();
  await expectPaidOnce('aborted');
});
