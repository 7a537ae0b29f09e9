/**
 * Stripe's client as both runtimes can run it: fetch for the network, Web Crypto for signatures.
 */
import { Stripe } from 'stripe';
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import { centsMetadata, tenantMetadata } from './top-up.ts';

/** Stripe's own bound on the age of a signature. */
const signatureSecondsMax = 300;

export interface Payments {
  /** A page of Stripe's where the tenant pays that amount. */
  createCheckout(order: {
    readonly tenant: string;
    readonly cents: number;
    readonly successUrl: string;
    readonly cancelUrl: string;
    /** Two orders of one key are one session. */
    readonly idempotencyKey: string;
  }): Promise<{ id: string; url: string }>;
  /** @throws ApiError `invalid_request` unless the body carries a fresh signature of Stripe's. */
  readEvent(body: string, signature: string): Promise<Stripe.Event>;
}

/** @throws ApiError `not_found` when no Stripe account is configured. */
export function openPayments(services: Services): Payments {
  const { settings, clock } = services;
  if (settings.stripe === null) {
    throw new ApiError('not_found', 'Payments are not set up here (EDGE_STRIPE_SECRET_KEY).');
  }
  const { secretKey, webhookSecret } = settings.stripe;
  const stripe = new Stripe(secretKey, {
    httpClient: Stripe.createFetchHttpClient(services.fetch),
    telemetry: false,
  });
  const cryptoProvider = Stripe.createSubtleCryptoProvider();

  return {
    async createCheckout({ tenant, cents, successUrl, cancelUrl, idempotencyKey }) {
      const metadata = { [tenantMetadata]: tenant, [centsMetadata]: String(cents) };
      const session = await stripe.checkout.sessions.create(
        {
          mode: 'payment',
          client_reference_id: tenant,
          metadata,
          payment_intent_data: { metadata },
          line_items: [
            {
              quantity: 1,
              price_data: {
                currency: 'usd',
                unit_amount: cents,
                product_data: { name: 'API credit' },
              },
            },
          ],
          success_url: successUrl,
          cancel_url: cancelUrl,
        },
        { idempotencyKey },
      );
      if (session.url === null) {
        throw new ApiError('internal_error', 'The payment provider returned no page to pay on.');
      }
      return { id: session.id, url: session.url };
    },

    async readEvent(body, signature) {
      try {
        return await stripe.webhooks.constructEventAsync(
          body,
          signature,
          webhookSecret,
          signatureSecondsMax,
          cryptoProvider,
          clock.nowMs(),
        );
      } catch (cause) {
        throw signatureError(cause);
      }
    },
  };
}

export function signatureError(cause?: unknown): ApiError {
  const message = 'The webhook signature is missing, wrong or too old.';
  return new ApiError('invalid_request', message, { cause });
}
