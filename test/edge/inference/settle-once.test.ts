/**
 * Whatever happens to an admitted request, it is settled exactly once, and for what it was worth.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { costNanoUsd } from '../../../edge/money.ts';
import { startHarness, sleep, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import type { StubFault, StubScript } from '../../support/edge/edge-stub-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

const balance = 10_000_000_000;
const words = ['one', ' two', ' three', ' four'];
/** The role, the words, the finish: and one more, after which the worker only counts. */
const events = [0, 1, 2, 3, 4, 5, 6];
const script: Partial<StubScript> = { words, promptTokens: 100, cachedTokens: 64 };
const body = (stream: boolean) => ({
  model: testModel,
  messages: [{ role: 'user', content: 'Count.' }],
  stream,
});

const cost = (output: number) =>
  costNanoUsd(
    { inputCached: 64, inputUncached: 36, outputText: output, outputReasoning: 0 },
    testPrice,
  );

/** Nothing is held any more, and what was paid is what one settlement says. */
async function expectSettled(paid: number): Promise<void> {
  await edge.idle();
  const now = await edge.tenant.balance();
  expect(now.held).toBe(0);
  expect(balance - now.granted - now.toppedUp).toBe(paid);
  expect(edge.settles).toHaveLength(1);
  const [status] = await edge.fleet.status();
  expect(status?.requestsInFlight ?? 0).toBe(0);
}

/** Reads the stream's text until it ends or breaks. */
async function readAll(response: Response): Promise<string> {
  let text = '';
  const decoder = new TextDecoder();
  try {
    for await (const piece of response.body ?? []) text += decoder.decode(piece, { stream: true });
  } catch {
    // A stream that breaks is as good as one that ends.
  }
  return text;
}

const contentOf = (sse: string) =>
  [...sse.matchAll(/"content":"([^"]*)"/g)].map(([, content]) => content).join('');

describe.each(events)('at event %i of a stream', (event) => {
  const before = Math.max(0, Math.min(event - 1, words.length));

  // One event is enough to tell the ways of failing apart; dying is tried at each.
  const kinds = ['die', 'end-early', 'garbage', 'bad-event', 'error-event'] as const;
  test.each(event === 3 ? kinds : kinds.slice(0, 1))(
    'a worker that fails (%s) ends it with an error, and what was delivered is billed',
    async (kind) => {
      const fault: StubFault = { kind, event };
      edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, fault }] });
      const response = await edge.post('/v1/chat/completions', body(true));
      const text = await readAll(response);
      if (event === 0) {
        expect(response.status).toBe(503);
        await expectSettled(0);
        return;
      }
      expect(response.status).toBe(200);
      expect(text).toContain('"code":"worker_failed"');
      expect(text).not.toContain('[DONE]');
      expect(contentOf(text)).toBe(words.slice(0, before).join(''));
      await expectSettled(cost(before));
      expect(edge.settles[0]?.outcome).toBe('failed');
    },
  );

  test('a client that leaves pays for what the worker had generated, by its journal', async () => {
    const slow = { ...script, pauseMs: 5 };
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [slow] });
    const leave = new AbortController();
    const response = await edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
    const reader = response.body?.getReader();
    for (let read = 0; read < event; read++) await reader?.read();
    leave.abort();
    await sleep(30);
    await edge.idle();
    const [record] = edge.worker.records.values();
    await expectSettled(cost(record?.output ?? -1));
  });

  test('a client that cancels its stream pays for what the worker had generated', async () => {
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, pauseMs: 5 }] });
    const response = await edge.post('/v1/chat/completions', body(true));
    const reader = response.body?.getReader();
    for (let read = 0; read < event; read++) await reader?.read();
    await reader?.cancel();
    await sleep(30);
    await edge.idle();
    const [record] = edge.worker.records.values();
    await expectSettled(cost(record?.output ?? -1));
  });
});

test.each(events.slice(0, 6))(
  'a worker that stalls at event %i is stopped when the client leaves',
  async (event) => {
    const fault: StubFault = { kind: 'stall', event };
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, fault }] });
    const generated = Math.max(0, Math.min(event - 1, words.length));
    const leave = new AbortController();
    const answer = edge
      .post('/v1/chat/completions', body(true), { signal: leave.signal })
      .catch(() => null);
    const record = () => [...edge.worker.records.values()][0];
    await expect.poll(() => record()?.output).toBe(generated);
    leave.abort();
    const response = await answer;
    if (response) await Promise.race([readAll(response), sleep(100)]);
    await edge.idle();
    expect(record()?.status).toBe('aborted');
    await expectSettled(cost(generated));
  },
);

test('without a journal, a client that leaves pays what the worker had last counted', async () => {
  const fault: StubFault = { kind: 'stall', event: 3 };
  edge = await startHarness({
    balanceNanoUsd: balance,
    hasJournal: false,
    scripts: [{ ...script, fault }],
  });
  const leave = new AbortController();
  const response = await edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
  const reader = response.body?.getReader();
  let text = '';
  while (!text.includes(' two')) text += new TextDecoder().decode((await reader?.read())?.value);
  leave.abort();
  await expectSettled(cost(2));
});

test('a client that leaves before its whole answer pays for what was generated', async () => {
  const fault: StubFault = { kind: 'stall', event: 3 };
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, fault }] });
  const leave = new AbortController();
  const answer = edge.post('/v1/chat/completions', body(false), { signal: leave.signal });
  await expect.poll(() => [...edge.worker.records.values()][0]?.output).toBe(2);
  leave.abort();
  expect((await answer).status).toBe(499);
  await expectSettled(cost(2));
});

test('a client that left before it was admitted pays nothing', async () => {
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [script] });
  const response = await edge.post('/v1/chat/completions', body(true), {
    signal: AbortSignal.abort(),
  });
  expect(response.status).toBe(499);
  expect(edge.worker.requests).toHaveLength(0);
  await expectSettled(0);
});

test('a client that left while the worker was still reading its request pays what was computed', async () => {
  edge = await startHarness({
    balanceNanoUsd: balance,
    scripts: [{ ...script, readsUntilLeft: true }],
  });
  const leave = new AbortController();
  const answer = edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
  await expect.poll(() => edge.worker.requests.length).toBe(1);
  await expect.poll(async () => (await edge.tenant.openHolds(0))[0]?.worker).toBe('worker-0');
  leave.abort();
  expect((await answer).status).toBe(499);
  await expectSettled(cost(0));
  expect(edge.worker.records.size).toBe(1);
});

test('a client that left before anything was computed pays nothing, and its hold is voided', async () => {
  const nothing = { promptTokens: 0, cachedTokens: 0, queuedMs: 60_000 };
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [nothing] });
  const leave = new AbortController();
  const answer = edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
  await expect.poll(() => edge.worker.records.size).toBe(1);
  leave.abort();
  await answer;
  await expectSettled(0);
  expect(edge.settles).toMatchObject([{ outcome: 'aborted', usage: null, confirmedChain: [] }]);
});

test('where no journal can be read and nothing was seen, the hold waits for the journal', async () => {
  edge = await startHarness({
    balanceNanoUsd: balance,
    scripts: [{ ...script, queuedMs: 60_000 }],
  });
  const leave = new AbortController();
  const answer = edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
  await expect.poll(() => edge.worker.records.size).toBe(1);
  await edge.worker.close();
  leave.abort();
  expect((await answer).status).toBe(499);
  await edge.idle();
  expect(edge.settles).toEqual([]);
  expect(await edge.tenant.openHolds(0)).toMatchObject([{ worker: 'worker-0' }]);
  expect(edge.logged).toContainEqual(expect.objectContaining({ event: 'settle-deferred' }));
});

test.each(['die', 'garbage', 'end-early'] as const)(
  'a whole answer that a worker (%s) did not complete costs nothing',
  async (kind) => {
    const fault: StubFault = { kind, event: 3 };
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, fault }] });
    const response = await edge.post('/v1/chat/completions', body(false));
    expect(response.status).toBe(502);
    await expectSettled(0);
  },
);

test('a worker that falls silent is given up, and what was delivered is billed', async () => {
  const fault: StubFault = { kind: 'stall', event: 3 };
  edge = await startHarness({
    balanceNanoUsd: balance,
    scripts: [{ ...script, fault }],
    settings: { workerSilenceMsMax: 30, keepAliveMs: 10 },
  });
  const text = await readAll(await edge.post('/v1/chat/completions', body(true)));
  expect(text).toContain(': keep-alive\n\n');
  expect(text).toContain('"code":"worker_failed"');
  await expectSettled(cost(2));
});

const answerWith = async (usage: StubScript['usage']) => {
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, usage }] });
  const response = await edge.post('/v1/chat/completions', body(false));
  return { response, body: await response.json() };
};

describe('the count', () => {
  test('may come at the end alone, or twice: it is billed once', async () => {
    await answerWith('final-only');
    await expectSettled(cost(4));
    await edge.close();
    await answerWith('twice');
    await expectSettled(cost(4));
  });

  test('of an explicit 0 is 0', async () => {
    const answer = await answerWith('explicit-zero');
    expect(answer.body.usage).toMatchObject({ completion_tokens: 0, prompt_cache_hit_tokens: 0 });
    await expectSettled(
      costNanoUsd(
        { inputCached: 0, inputUncached: 100, outputText: 0, outputReasoning: 0 },
        testPrice,
      ),
    );
  });

  test('is never made up: an answer without one is free, and logged', async () => {
    const answer = await answerWith('omitted');
    expect(answer.response.headers.get('x-sift-cost-nano-usd')).toBe('0');
    await expectSettled(0);
    expect(edge.logged).toContainEqual(expect.objectContaining({ event: 'usage-missing' }));
  });

  test('gives no discount from a worker that does not report cached tokens', async () => {
    edge = await startHarness({
      balanceNanoUsd: balance,
      scripts: [script],
      reportsCachedTokens: false,
    });
    const response = await edge.post('/v1/chat/completions', body(false));
    expect((await response.json()).usage.prompt_cache_hit_tokens).toBeNull();
    await expectSettled(100 * 280 + 4 * 420);
  });
});

describe('before the first byte', () => {
  const refusals: StubFault[] = [
    { kind: 'status', status: 429, retryAfter: '7' },
    { kind: 'status', status: 503 },
    { kind: 'status', status: 500 },
    { kind: 'not-a-stream' },
    { kind: 'die', event: 0 },
    { kind: 'end-early', event: 0 },
  ];

  test.each(refusals)('a refusal (%o) moves the request to the next-best worker', async (fault) => {
    edge = await startHarness({
      balanceNanoUsd: balance,
      scripts: [
        { ...script, fault },
        { ...script, fault },
      ],
    });
    const [, second] = edge.workers;
    // One of the two answers; which one is asked first is the fleet's business.
    if (second) second.script = { ...second.script, fault: null };
    for (let each = 0; each < 3; each++) {
      const response = await edge.post('/v1/chat/completions', body(false));
      expect(response.status).toBe(200);
    }
    expect(second?.requests).toHaveLength(3);
    await edge.idle();
    expect(edge.settles).toHaveLength(3);
    expect((await edge.tenant.balance()).held).toBe(0);
    const inFlight = (await edge.fleet.status()).map((each) => each.requestsInFlight);
    expect(inFlight).toEqual([0, 0]);
  });

  test('when no worker has room in time, the answer is 429 with their Retry-After, and free', async () => {
    const fault: StubFault = { kind: 'status', status: 429, retryAfter: '7' };
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ fault }, { fault }] });
    const headers = { 'x-sift-max-wait-ms': '0' };
    const response = await edge.post('/v1/chat/completions', body(true), { headers });
    expect(response.status).toBe(429);
    expect(response.headers.get('retry-after')).toBe('7');
    await expectSettled(0);
  });

  test('a worker that is not there is passed over', async () => {
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [script] });
    await edge.worker.close();
    const response = await edge.post('/v1/chat/completions', body(true));
    expect(response.status).toBe(503);
    await expectSettled(0);
  });

  test('a request that a worker finds wrong is not tried elsewhere', async () => {
    const error = {
      message: "Prompt and 'max_tokens' do not fit.",
      type: 'invalid_request_error',
      param: 'messages',
      code: 'context_length_exceeded',
    };
    const fault: StubFault = { kind: 'reject', status: 400, body: { error } };
    edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ fault }, { fault }] });
    const response = await edge.post('/v1/chat/completions', body(true));
    expect(response.status).toBe(400);
    expect((await response.json()).error).toEqual(error);
    expect(edge.workers.flatMap((each) => each.requests)).toHaveLength(1);
    await expectSettled(0);
  });
});

test('a worker that counts more than was held is paid the hold, and the excess is an alarm', async () => {
  const miscounting = { promptTokens: 1_000_000, cachedTokens: 0 };
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [miscounting] });
  const response = await edge.post('/v1/chat/completions', { ...body(false), max_tokens: 10 });
  const paid = Number(response.headers.get('x-sift-cost-nano-usd'));
  await expectSettled(paid);
  const [alarm] = edge.logged.filter((each) => JSON.stringify(each).includes('cost-exceeded-hold'));
  expect(alarm).toMatchObject({ model: testModel, usage: { inputUncached: 1_000_000 } });
  const excess = z.object({ excessNanoUsd: z.int() }).parse(alarm).excessNanoUsd;
  expect(paid + excess).toBe(1_000_000 * 280 + 5 * 420);
  expect(await edge.tenant.audit()).toEqual([]);
});

test('a settlement that fails at first is repeated, and stands once', async () => {
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [script] });
  const { settle } = edge.tenant;
  let failures = 2;
  edge.tenant.settle = async (input) => {
    if (failures-- > 0) throw new Error('the database is busy');
    return await settle(input);
  };
  const response = await edge.post('/v1/chat/completions', body(false));
  expect(response.status).toBe(200);
  await expectSettled(cost(4));
});

test('when nothing can be settled the client gets an error, not a free answer', async () => {
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [script] });
  edge.tenant.settle = () => Promise.reject(new Error('the disk is full'));
  const whole = await edge.post('/v1/chat/completions', body(false));
  expect(whole.status).toBe(500);
  const text = await readAll(await edge.post('/v1/chat/completions', body(true)));
  expect(text).not.toContain('[DONE]');
  expect(text).toContain('"code":"internal_error"');
  expect(text).not.toContain('disk');
});

test('a client that reads slowly slows the worker down', async () => {
  // More than the system keeps of a connection for either side, which may be some 10 MB.
  const many = Array.from({ length: 16_000 }, () => 'x'.repeat(1_000));
  edge = await startHarness({ balanceNanoUsd: balance, scripts: [{ ...script, words: many }] });
  const response = await edge.post('/v1/chat/completions', body(true));
  const reader = response.body?.getReader();
  await reader?.read();
  await sleep(200);
  const [record] = edge.worker.records.values();
  expect(record?.status).toBe('running');
  expect(record?.output).toBeLessThan(many.length);
  await reader?.cancel();
});

test('no answer begins before its hold would outlive a power cut; one of an engine without a journal waits at its end', async () => {
  edge = await startHarness({ scripts: [script], hasJournal: false });
  const { promise: kept, resolve: keep } = Promise.withResolvers<void>();
  const durable: unknown[] = [];
  const { placed } = edge.tenant;
  Object.assign(edge.tenant, {
    placed: async (input: Parameters<typeof placed>[0]) => {
      durable.push(input.durable);
      if (input.durable) await kept;
      return placed(input);
    },
  });
  expect((await edge.post('/v1/chat/completions', body(false))).status).toBe(200);
  const answer = edge.post('/v1/chat/completions', body(true));
  await expect.poll(() => edge.worker.requests.length).toBe(2);
  expect(await Promise.race([answer, sleep(100)])).toBeUndefined();
  keep();
  expect(contentOf(await readAll(await answer))).toBe(words.join(''));
  expect(durable).toEqual([false, true]);
  expect(edge.settles.map(({ isJournalled }) => isJournalled)).toEqual([false, false]);
});

test('a settlement that the journal can repeat is not waited for, unless its answer is kept', async () => {
  edge = await startHarness({ scripts: [script] });
  const durable: unknown[] = [];
  const { placed } = edge.tenant;
  Object.assign(edge.tenant, {
    placed: (input: Parameters<typeof placed>[0]) => {
      durable.push(input.durable);
      return placed(input);
    },
  });
  await (await edge.post('/v1/chat/completions', body(false))).text();
  await (await edge.post('/v1/chat/completions', body(true))).text();
  const keyed = { headers: { 'idempotency-key': 'k-1' } };
  await (await edge.post('/v1/chat/completions', body(false), keyed)).text();
  expect(durable).toEqual([true, true, true]);
  expect(edge.settles.map(({ isJournalled }) => isJournalled)).toEqual([true, true, false]);
});

test('a worker whose journal did not take the usage ends without [DONE], and its settlement waits', async () => {
  edge = await startHarness({ scripts: [{ ...script, fault: { kind: 'not-journalled' } }] });
  const text = await (await edge.post('/v1/chat/completions', body(true))).text();
  expect(text).toContain('data: [DONE]');
  expect(edge.settles.map(({ isJournalled }) => isJournalled)).toEqual([false]);
});

test.each([true, false])(
  'a hold remembers whom to ask only where there is a journal (%s)',
  async (hasJournal) => {
    edge = await startHarness({ scripts: [{ ...script, queuedMs: 60_000 }], hasJournal });
    const leave = new AbortController();
    const answer = edge.post('/v1/chat/completions', body(true), { signal: leave.signal });
    await expect.poll(() => edge.worker.requests.length).toBe(1);
    const [hold] = await edge.tenant.openHolds(0);
    expect(hold).toMatchObject({
      worker: 'worker-0',
      workerUrl: hasJournal ? edge.worker.url : null,
    });
    leave.abort();
    await answer;
  },
);

test('a client that leaves while it is admitted is kept until its hold is settled', async () => {
  edge = await startHarness({ scripts: [script] });
  const { admit } = edge.tenant;
  Object.assign(edge.tenant, {
    admit: async (input: Parameters<typeof admit>[0]) => {
      const admission = await admit(input);
      await sleep(50);
      return admission;
    },
  });
  const leave = new AbortController();
  const answer = edge.post('/v1/chat/completions', body(false), { signal: leave.signal });
  await expect.poll(async () => (await edge.tenant.balance()).held).toBeGreaterThan(0);
  leave.abort();
  await edge.idle();
  await expectSettled(0);
  expect((await answer).status).toBe(499);
});
