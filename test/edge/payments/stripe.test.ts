import { Stripe } from 'stripe';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createApp } from '../../../edge/app.ts';
import { mounts } from '../../../edge/edge.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import { startHarness } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

const webhookSecret = 'whsec_of_the_tests';
const stripe = new Stripe('sk_test_of_the_tests');
let harness: Harness;
beforeEach(async () => {
  harness = await startHarness({
    mounts,
    balanceNanoUsd: 0,
    settings: { stripe: { secretKey: 'sk_test_of_the_tests', webhookSecret } },
  });
});
afterEach(() => harness.close());

const paid = {
  id: 'cs_test_1',
  object: 'checkout.session',
  mode: 'payment',
  payment_status: 'paid',
  currency: 'usd',
  amount_total: 1_234,
  metadata: { sift_tenant: 'acme', sift_cents: '1234' },
};

let eventCount = 0;
function eventOf(session: object, type = 'checkout.session.completed'): string {
  const id = `evt_${++eventCount}`;
  return JSON.stringify({ id, object: 'event', type, data: { object: session } });
}

async function deliver(
  payload: string,
  options: { secret?: string; agedSeconds?: number; body?: string; app?: Harness['app'] } = {},
) {
  const header = stripe.webhooks.generateTestHeaderString({
    payload,
    secret: options.secret ?? webhookSecret,
    timestamp: Math.floor(harness.services.clock.nowMs() / 1_000) - (options.agedSeconds ?? 0),
  });
  const response = await (options.app ?? harness.app).request('/payments/stripe/webhook', {
    method: 'POST',
    headers: { 'stripe-signature': header },
    body: options.body ?? payload,
  });
  return { status: response.status, json: JSON.parse(await response.text()) };
}

const toppedUp = async () => (await harness.tenant.balance()).toppedUp;

test('a paid session is credited to the cent, as topped-up credit', async () => {
  const answer = await deliver(eventOf(paid));
  expect(answer).toEqual({ status: 200, json: { received: true, credited: true, reason: null } });
  expect(await harness.tenant.balance()).toMatchObject({ granted: 0, toppedUp: 12_340_000_000 });
});

test('an event is credited once, however often and however mixed up it is delivered', async () => {
  const first = eventOf(paid);
  const late = eventOf(paid, 'checkout.session.async_payment_succeeded');
  for (const payload of [late, first, late, first]) {
    expect((await deliver(payload)).status).toBe(200);
  }
  await Promise.all([first, late, first].map((payload) => deliver(payload)));
  expect(await toppedUp()).toBe(12_340_000_000);
  await deliver(eventOf({ ...paid, id: 'cs_test_2' }));
  expect(await toppedUp()).toBe(24_680_000_000);
});

test('a session that is paid later is credited later', async () => {
  const unpaid = await deliver(eventOf({ ...paid, payment_status: 'unpaid' }));
  expect(unpaid.json).toMatchObject({ credited: false, reason: 'the session is unpaid' });
  await deliver(
    eventOf({ ...paid, payment_status: 'unpaid' }, 'checkout.session.async_payment_failed'),
  );
  expect(await toppedUp()).toBe(0);
  await deliver(eventOf(paid, 'checkout.session.async_payment_succeeded'));
  expect(await toppedUp()).toBe(12_340_000_000);
});

test('what is not a payment of ours in dollars credits nothing, and is answered with why', async () => {
  const cases: [object, string, string?][] = [
    [{ ...paid, currency: 'eur' }, 'in eur'],
    [{ ...paid, currency: null }, 'no currency'],
    [{ ...paid, amount_total: 1_235 }, 'not the amount'],
    [{ ...paid, amount_total: null }, 'out of bounds'],
    [{ ...paid, amount_total: -50 }, 'out of bounds'],
    [{ ...paid, amount_total: 12.5 }, 'no checkout session'],
    [{ ...paid, metadata: null }, 'not created here'],
    [{ ...paid, metadata: { sift_tenant: 'nobody', sift_cents: '1234' } }, 'no such tenant'],
    [{ ...paid, mode: 'subscription' }, 'mode'],
    [{ ...paid, payment_status: 'no_payment_required' }, 'no_payment_required'],
    [{ object: 'charge' }, 'no checkout session'],
    [paid, 'credit nothing', 'checkout.session.expired'],
  ];
  for (const [session, reason, type] of cases) {
    const { status, json } = await deliver(eventOf(session, type));
    expect([status, json.credited]).toEqual([200, false]);
    expect(json.reason).toContain(reason);
  }
  expect(await toppedUp()).toBe(0);
});

test('a forged, altered, old or unsigned event is refused', async () => {
  const payload = eventOf(paid);
  const altered = payload.replaceAll('1234', '9999');
  for (const options of [{ secret: 'whsec_other' }, { body: altered }, { agedSeconds: 301 }]) {
    const { status, json } = await deliver(payload, options);
    expect([status, json.error.code]).toEqual([400, 'invalid_request']);
  }
  const unsigned = await harness.app.request('/payments/stripe/webhook', {
    method: 'POST',
    body: payload,
  });
  expect(unsigned.status).toBe(400);
  expect(await toppedUp()).toBe(0);
});

test('an event larger than any of Stripe is refused before it is read', async () => {
  const large = await deliver(eventOf({ ...paid, padding: 'x'.repeat(1_100_000) }));
  expect(large.status).toBe(413);
});

test('a credit that fails is answered with an error, so that Stripe delivers again', async () => {
  const failing = {
    ...harness.services,
    tenant: () => ({
      ...harness.tenant,
      credit: async (): Promise<boolean> => {
        throw new Error('the disk is full');
      },
    }),
  };
  const app = createApp(failing, mounts);
  const payload = eventOf(paid);
  const timestamp = Math.floor(harness.services.clock.nowMs() / 1_000);
  const signature = { payload, secret: webhookSecret, timestamp };
  const response = await app.request('/payments/stripe/webhook', {
    method: 'POST',
    headers: { 'stripe-signature': stripe.webhooks.generateTestHeaderString(signature) },
    body: payload,
  });
  expect(response.status).toBe(500);
  expect((await deliver(payload)).json.credited).toBe(true);
});

const order = {
  amount_cents: 1_234,
  success_url: 'https://a.test/ok',
  cancel_url: 'https://a.test/no',
};

async function checkout(services: Harness['services'], body: object) {
  const app = createApp(services, mounts);
  return app.request('/admin/tenants/acme/checkout', {
    method: 'POST',
    headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

test('a checkout session says what is sold, and to whom', async () => {
  const sent: { url: string; form: URLSearchParams; headers: Headers }[] = [];
  const answering: typeof fetch = async (url, init) => {
    const form = new URLSearchParams(String(init?.body));
    sent.push({ url: String(url), form, headers: new Headers(init?.headers) });
    return Response.json({
      id: 'cs_test_9',
      object: 'checkout.session',
      url: 'https://pay.test/9',
    });
  };
  const answer = await checkout({ ...harness.services, fetch: answering }, order);
  expect(answer.status).toBe(201);
  expect(await answer.json()).toEqual({ id: 'cs_test_9', url: 'https://pay.test/9' });
  expect(sent).toHaveLength(1);
  expect(sent[0]?.url).toBe('https://api.stripe.com/v1/checkout/sessions');
  expect(sent[0]?.headers.get('idempotency-key')).toMatch(/^[0-9a-f]{32}$/);
  expect(Object.fromEntries(sent[0]?.form ?? [])).toMatchObject({
    mode: 'payment',
    'metadata[sift_tenant]': 'acme',
    'metadata[sift_cents]': '1234',
    'line_items[0][price_data][currency]': 'usd',
    'line_items[0][price_data][unit_amount]': '1234',
    'line_items[0][quantity]': '1',
  });
});

test('amounts that cannot be paid, foreign schemes and a missing account are refused', async () => {
  const bad = [
    { amount_cents: 49 },
    { amount_cents: 10.5 },
    { success_url: 'javascript:alert(1)' },
  ];
  for (const change of bad) {
    const answer = await checkout(harness.services, { ...order, ...change });
    expect([400, 422]).toContain(answer.status);
  }
  const settings = { ...harness.settings, stripe: null };
  expect((await checkout({ ...harness.services, settings }, order)).status).toBe(404);
});

test('a payment is not credited again to a ledger from an older copy; the operator decides', async () => {
  const event = eventOf(paid);
  await deliver(event);
  const { tenant: older } = openTestTenant();
  const app = createApp({ ...harness.services, tenant: () => older }, mounts);
  for (const payload of [event, eventOf(paid)]) {
    expect(await deliver(payload, { app })).toMatchObject({
      status: 200,
      json: { credited: false, reason: 'the session was credited before' },
    });
  }
  expect((await older.balance()).toppedUp).toBe(0);
  const headers = { authorization: 'Bearer admin-token', 'content-type': 'application/json' };
  const audit = async () => (await app.request('/admin/audit', { headers })).json();
  expect(await audit()).toMatchObject({
    ok: false,
    findings: [
      {
        tenant: 'acme',
        finding: expect.stringMatching(
          /stripe:cs_test_1 of 12\.34 USD .*credits add acme 12\.34 --kind topped-up --source stripe:cs_test_1$/,
        ),
      },
    ],
  });
  const body = { kind: 'topped-up', amount_nano_usd: 12_340_000_000, source: 'stripe:cs_test_1' };
  for (const credited of [true, false]) {
    const answer = await app.request('/admin/tenants/acme/credits', {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    });
    expect(await answer.json()).toEqual({ credited });
  }
  expect(await audit()).toMatchObject({ ok: true, findings: [] });
});

test.each(['before the credit', 'after the credit'])(
  'a payment whose credit a crash stopped %s is credited once when it is told again',
  async (when) => {
    const fails = () => Promise.reject(new Error('the process died'));
    const { services } = harness;
    const stopped =
      when === 'before the credit'
        ? { ...services, tenant: (id: string) => ({ ...services.tenant(id), credit: fails }) }
        : { ...services, directory: { ...services.directory, endPayment: fails } };
    const event = eventOf(paid);
    expect((await deliver(event, { app: createApp(stopped, mounts) })).status).toBe(500);
    expect((await deliver(event)).status).toBe(200);
    expect((await deliver(event)).json).toMatchObject({ credited: false });
    expect(await toppedUp()).toBe(12_340_000_000);
    expect(await harness.directory.beginPayment(begun)).toBe('credited');
  },
);

test('a payment from before the directory kept payments is not credited again either', async () => {
  const event = eventOf(paid);
  const { id } = JSON.parse(event) as { id: string };
  await harness.directory.noteEvent({ id, kind: 'checkout', tenant: 'acme', receivedAtMs: 1 });
  expect((await deliver(event)).json).toMatchObject({ credited: false });
  expect(await toppedUp()).toBe(0);
  expect(await harness.directory.beginPayment(begun)).toBe('credited');
});

const begun = { source: 'stripe:cs_test_1', tenant: 'acme', amountNanoUsd: 1, beganAtMs: 1 };
