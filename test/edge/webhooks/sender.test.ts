/** Deliveries of one tenant: signatures, retries, and who waits for whom. */
import { onTestFinished, expect, test } from 'vitest';
import { createWebhookPost } from '../../../edge/node/webhook-post.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import type { NewWebhook } from '../../../edge/tenant/webhook-contract.ts';
import { disableAfterMs, triesMax } from '../../../edge/webhooks/retry-schedule.ts';
import { createSender } from '../../../edge/webhooks/sender.ts';
import { webhooksMax } from '../../../edge/webhooks/webhook-list.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import { addKey, admitInput, operator, settleInput } from '../../support/edge/tenant-samples.ts';
import { startReceiver, verified } from '../../support/edge/webhook-receiver.ts';
import type { WebhookReceiver } from '../../support/edge/webhook-receiver.ts';

const secretOf = (id: string) => `whsec_${Buffer.from(id.repeat(32)).toString('base64')}`;

async function receive(...answer: Parameters<typeof startReceiver>): Promise<WebhookReceiver> {
  const receiver = await startReceiver(...answer);
  onTestFinished(() => receiver.close());
  return receiver;
}

async function addWebhook(tenant: Tenant, url: string, change: Partial<NewWebhook> = {}) {
  const { id = 'w' } = change;
  const terms = { label: '', events: ['top_up.received'], lowBalanceNanoUsd: null } as const;
  const webhook = { ...terms, budgetPercents: [], url, secret: secretOf(id), id, ...change };
  return tenant.createWebhook(webhook, operator);
}

let sources = 0;
const topUp = (tenant: Tenant, amountNanoUsd = 1_000_000) =>
  tenant.credit({ kind: 'topped-up', amountNanoUsd, source: `pay-${sources++}`, note: '' });

function open(hosts: readonly string[] = ['127.0.0.1']) {
  // A signature is as old as the clock says, so the clock is not years behind.
  const opened = openTestTenant();
  opened.clock.advance(Date.now() - opened.clock.nowMs());
  const { tenant, clock } = opened;
  const sender = createSender({ tenant, post: createWebhookPost({ hosts }), hosts, clock });
  return { ...opened, sender };
}

const deliveries = async (tenant: Tenant, id = 'w') =>
  (await tenant.webhookDeliveries({ id, beforeEvent: null, limit: 50 })) ?? [];

test('an event is delivered once, signed, and logged', async () => {
  const { tenant, sender } = open();
  const receiver = await receive();
  await addWebhook(tenant, receiver.url);
  await topUp(tenant, 7_000_000);
  expect(await sender.run()).toBeNull();
  await sender.run();
  expect(receiver.received).toHaveLength(1);
  const [first] = receiver.received;
  expect(first && verified(secretOf('w'), first)).toMatchObject({
    type: 'top_up.received',
    data: { amount_nano_usd: 7_000_000, balance_nano_usd: 7_000_000 },
  });
  expect(first?.headers).toMatchObject({ 'content-type': 'application/json' });
  expect(await deliveries(tenant)).toMatchObject([
    {
      eventId: first?.headers['webhook-id'],
      status: 'delivered',
      nextAtMs: null,
      tries: [{ httpStatus: 204, error: null }],
    },
  ]);
});

test('a delivery that fails is tried again on the schedule, always under one id', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive((response, index) =>
    response.writeHead(index < 3 ? 500 : 200).end('the body is read by nobody'),
  );
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  const pauses: number[] = [];
  for (let nextAtMs = await sender.run(); nextAtMs !== null; nextAtMs = await sender.run()) {
    pauses.push(nextAtMs - clock.nowMs());
    clock.advance(nextAtMs - clock.nowMs() - 1);
    expect(await sender.run()).toBe(nextAtMs);
    clock.advance(1);
  }
  expect(pauses).toHaveLength(3);
  for (const [index, leastMs] of [5_000, 300_000, 1_800_000].entries()) {
    expect(pauses[index]).toBeGreaterThanOrEqual(leastMs);
    expect(pauses[index]).toBeLessThanOrEqual(leastMs * 1.1);
  }
  expect(new Set(receiver.received.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  const [delivery] = await deliveries(tenant);
  expect(delivery).toMatchObject({ status: 'delivered' });
  expect(delivery?.tries.map(({ httpStatus }) => httpStatus)).toEqual([500, 500, 500, 200]);
});

test('a receiver that asks to wait is not tried before', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive((response) =>
    response.writeHead(429, { 'retry-after': '3600' }).end(),
  );
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  expect(await sender.run()).toBe(clock.nowMs() + 3_600_000);
});

test('a delivery is given up after its last try, and goes on when it is sent again', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive((response, index) =>
    response.writeHead(index < triesMax ? 503 : 204).end(),
  );
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  for (let nextAtMs = await sender.run(); nextAtMs !== null; nextAtMs = await sender.run()) {
    clock.advance(nextAtMs - clock.nowMs());
  }
  const [failed] = await deliveries(tenant);
  expect(failed?.status).toBe('failed');
  expect(failed?.tries).toHaveLength(triesMax);
  const named = { id: 'w', eventId: failed?.eventId ?? '' };
  expect((await tenant.resendWebhook(named, operator)).kind).toBe('sent');
  await sender.run();
  expect((await deliveries(tenant))[0]).toMatchObject({
    ...failed,
    status: 'delivered',
    tries: {},
  });
  expect(new Set(receiver.received.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
});

test('a webhook of which everything fails for days is disabled, until its owner says otherwise', async () => {
  const { tenant, sender, clock } = open();
  let status = 500;
  const receiver = await receive((response) => response.writeHead(status).end());
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  await sender.run();
  clock.advance(disableAfterMs - 1_000);
  await topUp(tenant);
  await sender.run();
  expect((await tenant.webhooks())[0]?.status).toBe('active');
  clock.advance(1_000);
  await topUp(tenant);
  await sender.run();
  expect((await tenant.webhooks())[0]).toMatchObject({
    status: 'disabled',
    disabledReason: expect.stringContaining('every try since'),
  });
  const tried = receiver.received.length;
  await topUp(tenant);
  await sender.run();
  expect(receiver.received).toHaveLength(tried);
  expect((await deliveries(tenant)).map((each) => each.status)).toEqual([
    'failed',
    'failed',
    'failed',
  ]);
  expect(await tenant.testWebhook('w', operator)).toEqual({ kind: 'disabled' });
  status = 200;
  await tenant.updateWebhook('w', { status: 'active' }, operator);
  expect((await tenant.testWebhook('w', operator)).kind).toBe('sent');
  await sender.run();
  expect(receiver.received).toHaveLength(tried + 1);
  expect((await tenant.webhooks())[0]).toMatchObject({ status: 'active', failingSinceMs: null });
});

test('a receiver that is gone for good is sent nothing more', async () => {
  const { tenant, sender } = open();
  const receiver = await receive((response) => response.writeHead(410).end());
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  await sender.run();
  expect((await tenant.webhooks())[0]?.disabledReason).toContain('410');
});

test('a slow receiver holds up nobody but itself', async () => {
  const { tenant, sender } = open();
  const held = Promise.withResolvers<void>();
  const slow = await receive((response) => {
    void held.promise.then(() => response.writeHead(204).end());
  });
  const quick = await receive();
  await addWebhook(tenant, slow.url, { id: 'slow' });
  await addWebhook(tenant, quick.url, { id: 'quick' });
  await topUp(tenant);
  const run = sender.run();
  await expect.poll(() => slow.received.length).toBe(1);
  await topUp(tenant);
  sender.wake();
  await expect.poll(() => quick.received.length).toBe(2);
  await topUp(tenant);
  sender.wake();
  await expect.poll(() => quick.received.length).toBe(3);
  expect(slow.received).toHaveLength(1);
  held.resolve();
  await run;
  expect(slow.received).toHaveLength(3);
});

test('for a day after a rotation both secrets sign', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive();
  await addWebhook(tenant, receiver.url);
  await tenant.rotateWebhookSecret({ id: 'w', secret: secretOf('x') }, operator);
  await tenant.rotateWebhookSecret({ id: 'w', secret: secretOf('x') }, operator);
  await topUp(tenant);
  await sender.run();
  const [first] = receiver.received;
  expect(first && verified(secretOf('w'), first)).toBeTruthy();
  expect(first && verified(secretOf('x'), first)).toBeTruthy();
  clock.advance(24 * 3_600_000);
  await topUp(tenant);
  await sender.run();
  expect(String(receiver.received[1]?.headers['webhook-signature']).split(' ')).toHaveLength(1);
});

test('a low balance is told once, and again after it was above its bound', async () => {
  const { tenant, sender } = open();
  const receiver = await receive();
  await addKey(tenant);
  await topUp(tenant, 400_000);
  const events = ['balance.low'] as const;
  await addWebhook(tenant, receiver.url, { events, lowBalanceNanoUsd: 300_000 });
  const spend = async (id: string) => {
    await tenant.admit(admitInput(id, { promptTokensMax: 300 }));
    await tenant.settle(settleInput(id));
    await sender.run();
  };
  await spend('a');
  expect(receiver.received).toHaveLength(0);
  await spend('b');
  await spend('c');
  expect(receiver.received.map(({ body }) => JSON.parse(body))).toMatchObject([
    { type: 'balance.low', data: { balance_nano_usd: 246_000, low_balance_nano_usd: 300_000 } },
  ]);
  await topUp(tenant, 200_000);
  await spend('d');
  await spend('e');
  expect(receiver.received).toHaveLength(2);
});

test('a key that expires within a week is told once, and once more when it gets more time', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive();
  await addKey(tenant);
  await addKey(tenant, 'key-2');
  await addWebhook(tenant, receiver.url, { events: ['key.expiring'] });
  const dayMs = 86_400_000;
  const expiresAtMs = clock.nowMs() + 10 * dayMs;
  await tenant.updateKey('key-1', { expiresAtMs }, operator);
  expect(await sender.run()).toBe(expiresAtMs - 7 * dayMs);
  clock.advance(3 * dayMs);
  await sender.run();
  await sender.run();
  expect(receiver.received.map(({ body }) => JSON.parse(body))).toMatchObject([
    { type: 'key.expiring', data: { key_id: 'key-1', expires_at_ms: expiresAtMs } },
  ]);
  await tenant.updateKey('key-1', { expiresAtMs: expiresAtMs + 1 }, operator);
  await sender.run();
  clock.advance(1);
  await sender.run();
  expect(receiver.received).toHaveLength(2);
  await tenant.updateKey('key-2', { expiresAtMs: clock.nowMs() + 1 }, operator);
  await tenant.updateKey('key-2', { status: 'revoked' }, operator);
  expect(await sender.run()).toBeNull();
  expect(receiver.received).toHaveLength(2);
});

test('shares of a budget are told once in each window, to each webhook its own', async () => {
  const { tenant, sender, clock } = open();
  const receiver = await receive();
  await addKey(tenant);
  await topUp(tenant, 100_000_000);
  const terms = { zone: 'UTC', windows: [{ period: 'day', limitNanoUsd: 1_000_000 }] } as const;
  await tenant.setBudget('agent', terms);
  const events = ['budget.threshold_reached'] as const;
  await addWebhook(tenant, receiver.url, { id: 'a', events, budgetPercents: [10, 20] });
  await addWebhook(tenant, receiver.url, { id: 'b', events, budgetPercents: [15] });
  let requests = 0;
  const spend = async () => {
    const id = `r${requests++}`;
    await tenant.admit(admitInput(id, { budgets: { names: ['agent'], trimTo: null } }));
    // Each costs 77,000 nano-USD: 7.7% of the budget.
    await tenant.settle(settleInput(id));
    await sender.run();
  };
  const percents = () =>
    receiver.received.map(({ body }) => JSON.parse(body).data.percent).toSorted();
  await spend();
  expect(percents()).toEqual([]);
  await spend();
  expect(percents()).toEqual([10, 15]);
  await spend();
  await spend();
  expect(percents()).toEqual([10, 15, 20]);
  expect(JSON.parse(receiver.received.at(-1)?.body ?? '')).toMatchObject({
    type: 'budget.threshold_reached',
    data: { budget: 'agent', key_id: null, window: 'day', limit_nano_usd: 1_000_000 },
  });
  clock.advance(86_400_000);
  await spend();
  await spend();
  expect(percents()).toEqual([10, 10, 15, 15, 20]);
});

test('an event lives and dies with the transaction of its cause', async () => {
  const { tenant, sender } = open();
  const receiver = await receive();
  await addWebhook(tenant, receiver.url);
  const credit = { kind: 'topped-up', amountNanoUsd: 5, source: 'same', note: '' } as const;
  await tenant.credit(credit);
  expect(await tenant.credit(credit)).toBe(false);
  const tooMuch = { ...credit, amountNanoUsd: Number.MAX_SAFE_INTEGER, source: 'other' };
  await expect(tenant.credit(tooMuch)).rejects.toThrow('a balance is a safe integer');
  await sender.run();
  expect(receiver.received).toHaveLength(1);
});

test('what could not be recorded is delivered again, and the run ends with the reason', async () => {
  const { tenant, clock } = open();
  const receiver = await receive();
  await addWebhook(tenant, receiver.url);
  await topUp(tenant);
  const hosts = ['127.0.0.1'];
  const options = { post: createWebhookPost({ hosts }), hosts, clock };
  const failing = { ...tenant, recordWebhookTry: async () => Promise.reject(new Error('locked')) };
  await expect(createSender({ ...options, tenant: failing }).run()).rejects.toThrow('locked');
  await createSender({ ...options, tenant }).run();
  expect(receiver.received.map(({ headers }) => headers['webhook-id'])).toEqual([
    expect.any(String),
    receiver.received[0]?.headers['webhook-id'],
  ]);
});

test('an account has a bounded number of webhooks', async () => {
  const { tenant } = open();
  for (let index = 0; index < webhooksMax; index++) {
    expect(await addWebhook(tenant, 'https://a.example', { id: `w${index}` })).not.toBeNull();
  }
  expect(await addWebhook(tenant, 'https://a.example', { id: 'more' })).toBeNull();
  expect(await addWebhook(tenant, 'https://a.example', { id: 'w0' })).toMatchObject({ id: 'w0' });
});
