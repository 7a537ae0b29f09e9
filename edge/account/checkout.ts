/** Top-ups: a page of Stripe on which an account pays; its webhook credits what was paid. */
import { z } from 'zod';
import { openPayments } from '../payments/stripe.ts';
import { topUpCentsMax, topUpCentsMin } from '../payments/top-up.ts';
import { accountEndpoint } from './account-endpoint.ts';
import { idempotencyHeaders, idempotentBytes } from './idempotent-bytes.ts';

const webUrl = z.url({ protocol: /^https?$/ }).max(2_000);

export const checkout = accountEndpoint(
  {
    method: 'post',
    path: '/checkout',
    summary: 'A page of Stripe on which the account tops up',
    description: 'The balance grows once it is paid.',
    scope: 'admin',
    headers: idempotencyHeaders,
    body: z
      .strictObject({
        amount_cents: z.int().min(topUpCentsMin).max(topUpCentsMax),
        success_url: webUrl.describe('where Stripe sends who has paid'),
        cancel_url: webUrl.describe('where it sends who has not'),
      })
      .meta({
        examples: [
          {
            amount_cents: 2_500,
            success_url: 'https://app.example/paid',
            cancel_url: 'https://app.example/billing',
          },
        ],
      }),
    answer: z.object({ id: z.string(), url: z.string() }).meta({
      examples: [{ id: 'cs_live_a1', url: 'https://checkout.stripe.com/c/pay/cs_live_a1' }],
    }),
    status: 201,
  },
  async (input) => {
    const { services, tenantId, tenant, actor, body } = input;
    const order = await openPayments(services).createCheckout({
      tenant: tenantId,
      cents: body.amount_cents,
      successUrl: body.success_url,
      cancelUrl: body.cancel_url,
      idempotencyKey: Buffer.from(idempotentBytes(input, 'checkout').bytes(16)).toString('hex'),
    });
    const detail = { amount_cents: body.amount_cents };
    await tenant.noteAction({ action: 'checkout.created', object: order.id, detail }, actor);
    return order;
  },
);
