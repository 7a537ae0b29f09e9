/**
 * Tells what a Stripe event is worth: the one place where a payment becomes an amount. Only a
 * checkout session that this edge created, paid in full and in dollars, is worth something.
 */
import { z } from 'zod';

/** One cent in nano-USD. */
export const nanoUsdPerCent = 10_000_000;

/** Stripe's least charge is 50 cents; the upper bound keeps a slip of the keyboard out. */
export const topUpCentsMin = 50;
export const topUpCentsMax = 10_000_000;

/** Under these names a session's metadata says what was sold, to check the payment against. */
export const tenantMetadata = 'sift_tenant';
export const centsMetadata = 'sift_cents';

/**
 * A payment that completes at once says so in `completed`; one by bank debit is unpaid there and
 * says so later. Both name one session, and the session is what is credited once.
 */
const paidEvents = ['checkout.session.completed', 'checkout.session.async_payment_succeeded'];

const sessionSchema = z.looseObject({
  id: z.string().min(1).max(255),
  object: z.literal('checkout.session'),
  mode: z.string(),
  payment_status: z.string(),
  currency: z.string().nullable(),
  amount_total: z.int().nullable(),
  metadata: z.record(z.string(), z.string()).nullable(),
});

export type TopUp =
  | {
      readonly kind: 'top-up';
      readonly tenant: string;
      readonly amountNanoUsd: number;
      /** The source of a session, whichever of its events comes first. */
      readonly source: string;
    }
  | { readonly kind: 'none'; readonly reason: string };

export function topUpOf(event: {
  readonly type: string;
  readonly data: { readonly object: unknown };
}): TopUp {
  if (!paidEvents.includes(event.type)) return none(`events of type ${event.type} credit nothing`);
  const parsed = sessionSchema.safeParse(event.data.object);
  if (!parsed.success) return none('the event holds no checkout session');
  const session = parsed.data;
  const tenant = session.metadata?.[tenantMetadata];
  if (tenant === undefined) return none('the session was not created here');
  if (session.mode !== 'payment') return none(`the session's mode is ${session.mode}`);
  if (session.payment_status !== 'paid') return none(`the session is ${session.payment_status}`);
  if (session.currency !== 'usd')
    return none(`the session is in ${session.currency ?? 'no currency'}`);
  const cents = session.amount_total;
  if (cents === null || cents < topUpCentsMin || cents > topUpCentsMax) {
    return none('the amount is out of bounds');
  }
  if (String(cents) !== session.metadata?.[centsMetadata]) {
    return none('the amount paid is not the amount that was asked for');
  }
  return {
    kind: 'top-up',
    tenant,
    amountNanoUsd: cents * nanoUsdPerCent,
    source: `stripe:${session.id}`,
  };
}

function none(reason: string): TopUp {
  return { kind: 'none', reason };
}
