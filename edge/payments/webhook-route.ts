/**
 * `POST /payments/stripe/webhook`. Stripe redelivers until it sees a 2xx, in any order and for
 * days, so what makes an event count once is the tenant's ledger, which takes one credit per
 * session, and beside it the directory, which outlives a ledger that is lost. An event that is
 * worth nothing is answered with 200 and the reason; an error would only repeat it.
 */
import { Hono } from 'hono';
import type { AppEnv } from '../middleware/app-env.ts';
import { readBody } from '../bodies/read-body.ts';
import type { Services } from '../services.ts';
import { openPayments, signatureError } from './stripe.ts';
import { topUpOf } from './top-up.ts';
import type { TopUp } from './top-up.ts';

/** Stripe's events are a few kilobytes; the route is open to everyone until it has read one. */
const limits = { owner: '/payments', bytesMax: 1024 * 1024 };

export function paymentRoutes(services: Services): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post('/stripe/webhook', async (c) => {
    const payments = openPayments(services);
    const signature = c.req.header('stripe-signature') ?? '';
    if (signature === '') throw signatureError();
    const { bytes, release } = await readBody(c, services, limits);
    // The signature is over the bytes as sent; parsing and printing would change them.
    const text = new TextDecoder().decode(bytes);
    release();
    const event = await payments.readEvent(text, signature);
    const answer = await creditEvent(services, event);
    services.log('info', 'stripe-webhook', { id: event.id, type: event.type, ...answer });
    return c.json({ received: true, ...answer });
  });
  return app;
}

async function creditEvent(
  services: Services,
  event: {
    readonly id: string;
    readonly type: string;
    readonly data: { readonly object: unknown };
  },
): Promise<{ credited: boolean; reason: string | null }> {
  const topUp = topUpOf(event);
  if (topUp.kind === 'none') return { credited: false, reason: topUp.reason };
  const known = await services.directory.tenant(topUp.tenant);
  if (known === null) return { credited: false, reason: 'there is no such tenant' };
  const first = await creditOnce(services, topUp, event.id);
  await services.directory.noteEvent({
    id: event.id,
    kind: event.type,
    tenant: topUp.tenant,
    receivedAtMs: services.clock.nowMs(),
  });
  return { credited: first, reason: first ? null : 'the session was credited before' };
}

/**
 * The directory knows of the payment before the tenant's ledger has it, and knows that it has it
 * after. A crash in between leaves `begun`, and then the ledger says whether it has the credit.
 * Where the directory says `credited` and the ledger lacks it, an older copy was put back: the
 * audit lists it, and its operator decides.
 */
async function creditOnce(
  { directory, tenant, clock }: Services,
  topUp: Extract<TopUp, { kind: 'top-up' }>,
  eventId: string,
): Promise<boolean> {
  const { source, amountNanoUsd } = topUp;
  const begun = { source, amountNanoUsd, tenant: topUp.tenant, beganAtMs: clock.nowMs() };
  const before = await directory.beginPayment(begun);
  if (before === 'credited') return false;
  // It was credited before the directory kept payments, which noted events after their credit
  // alone.
  const isOld = before === 'new' && (await directory.knowsEvent(eventId));
  const note = `Stripe event ${eventId}`;
  const first =
    !isOld &&
    (await tenant(topUp.tenant).credit({ kind: 'topped-up', amountNanoUsd, source, note }));
  await directory.endPayment(source);
  return first;
}
