/** Webhooks that Stripe did not send, and those that it sent before. */
import { Stripe } from 'stripe';
import { z } from 'zod';
import { verdictOf, wasRefused } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import { secrets } from './system.ts';
import type { HostileSystem } from './system.ts';

const stripe = new Stripe('sk_test_of_the_attacks');
const cents = 500;
const creditedNanoUsd = cents * 10_000_000;

interface Delivery {
  readonly secret?: string;
  readonly agedSeconds?: number;
  /** Sent in place of the signed payload. */
  readonly body?: string;
  /** Sent in place of the signature. */
  readonly signature?: string;
}

let events = 0;

function eventOf(tenant: string, session: Readonly<Record<string, unknown>> = {}): string {
  const id = `evt_${++events}`;
  const object = {
    id: `cs_${events}`,
    object: 'checkout.session',
    mode: 'payment',
    payment_status: 'paid',
    currency: 'usd',
    amount_total: cents,
    metadata: { sift_tenant: tenant, sift_cents: String(cents) },
    ...session,
  };
  return JSON.stringify({
    id,
    object: 'event',
    type: 'checkout.session.completed',
    data: { object },
  });
}

function deliver(
  system: HostileSystem,
  payload: string,
  delivery: Delivery = {},
): Promise<Response> {
  const signature =
    delivery.signature ??
    stripe.webhooks.generateTestHeaderString({
      payload,
      secret: delivery.secret ?? secrets.stripeWebhookSecret,
      timestamp: Math.floor(Date.now() / 1_000) - (delivery.agedSeconds ?? 0),
    });
  return fetch(`${system.edge.url}/payments/stripe/webhook`, {
    method: 'POST',
    headers: { 'stripe-signature': signature },
    body: delivery.body ?? payload,
  });
}

const balanceSchema = z.object({ balance: z.object({ topped_up_nano_usd: z.int() }) });

async function toppedUp(system: HostileSystem, tenant: string): Promise<number> {
  const answer = await system.operator.call('GET', `/tenants/${tenant}`);
  return balanceSchema.parse(answer).balance.topped_up_nano_usd;
}

async function creditsNothing(
  system: HostileSystem,
  work: () => Promise<Verdict>,
): Promise<Verdict> {
  const { tenant } = system.attacker;
  const before = await toppedUp(system, tenant);
  const verdict = await work();
  const credited = (await toppedUp(system, tenant)) - before;
  return credited === 0 ? verdict : { broken: `${credited} nano-USD were credited` };
}

const forged: Readonly<Record<string, Delivery>> = {
  'no signature': { signature: '' },
  'another secret': { secret: 'whsec_of_somebody' },
  'an empty secret': { secret: ' ' },
  'a signature of an hour ago': { agedSeconds: 3_600 },
  'a signature without a time': { signature: 'v1=00' },
  'a signature of the scheme v0 alone': { signature: `t=${Math.floor(Date.now() / 1_000)},v0=00` },
  'a time that is no number': { signature: 't=now,v1=00' },
  'a hundred thousand signatures': {
    signature: `t=${Math.floor(Date.now() / 1_000)}${',v1=00'.repeat(1_500)}`,
  },
};

const worthless: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'an unpaid session': { payment_status: 'unpaid' },
  'a session in yen': { currency: 'jpy' },
  'a session of nothing': {
    amount_total: 0,
    metadata: { sift_tenant: 'attacker', sift_cents: '0' },
  },
  'a session below nothing': {
    amount_total: -500,
    metadata: { sift_tenant: 'attacker', sift_cents: '-500' },
  },
  'a session that paid less than was asked': { amount_total: 50 },
  'a session of 2^53 cents': {
    amount_total: 2 ** 53 - 1,
    metadata: { sift_tenant: 'attacker', sift_cents: String(2 ** 53 - 1) },
  },
  'cents in another spelling': { metadata: { sift_tenant: 'attacker', sift_cents: '5e2' } },
  'a session of nobody': { metadata: { sift_tenant: 'nobody', sift_cents: '500' } },
  'a path for a tenant': { metadata: { sift_tenant: '../attacker', sift_cents: '500' } },
  'a tenant by an odd name': { metadata: JSON.parse('{"__proto__":"x","sift_cents":"500"}') },
  'no metadata': { metadata: null },
};

export const stripeAttacks: readonly Attack[] = [
  ...Object.entries(forged).map(([name, delivery]): Attack => ({
    name: `a webhook with ${name}`,
    run: (system) =>
      creditsNothing(system, async () =>
        wasRefused(await deliver(system, eventOf('attacker'), delivery)),
      ),
  })),
  {
    name: 'a signed webhook with another body',
    run: (system) =>
      creditsNothing(system, async () => {
        const payload = eventOf('victim');
        const body = payload.replace('victim', 'attacker');
        return wasRefused(await deliver(system, payload, { body }));
      }),
  },
  {
    name: 'a body of 2 MB without a signature',
    run: (system) =>
      creditsNothing(system, async () => {
        const body = ' '.repeat(2 * 2 ** 20);
        const sent = deliver(system, '{}', { body, signature: 'x' });
        // The connection may be closed before all of the body was sent.
        const response = await sent.catch(() => null);
        return response === null ? 'held' : wasRefused(response);
      }),
  },
  ...Object.entries(worthless).map(([name, session]): Attack => ({
    name: `a signed webhook of ${name}`,
    run: (system) =>
      creditsNothing(system, async () => {
        const answer = await deliver(system, eventOf('attacker', session));
        const text = await answer.text();
        return verdictOf(answer.status === 200 ? null : `it answered ${answer.status} ${text}`);
      }),
  })),
  {
    name: 'one session, forty times at once, under names of many events',
    async run(system) {
      const { tenant } = await system.addTenant('paid-once', 0);
      const id = 'cs_paid_once';
      const payloads = Array.from({ length: 40 }, (_, at) =>
        at % 2 === 0 ? eventOf(tenant, { id }) : eventOf(tenant, { id, amount_total: cents }),
      );
      const answers = await Promise.all(payloads.map((payload) => deliver(system, payload)));
      await Promise.all(answers.map((answer) => answer.text()));
      const credited = await toppedUp(system, tenant);
      return verdictOf(
        credited === creditedNanoUsd ? null : `${credited} nano-USD, not ${creditedNanoUsd}`,
      );
    },
  },
];
