/** Webhooks as JSON: snake case, integers in nano-USD, times in Unix milliseconds. */
import { z } from 'zod';
import { plainText } from '../admin/plain-text.ts';
import { nanoUsd } from '../dialects/quantities.ts';
import { webhookEventTypes } from '../tenant/webhook-contract.ts';
import type {
  WebhookChange,
  WebhookDelivery,
  WebhookRecord,
  WebhookTerms,
} from '../tenant/webhook-contract.ts';

const unixMs = z.int().min(0).describe('Unix milliseconds');

const termFields = {
  url: z.string().max(2_000).describe('https; redirects are not followed'),
  label: plainText(200),
  events: z
    .array(z.enum(webhookEventTypes))
    .min(1)
    .max(webhookEventTypes.length)
    .describe('`webhook.test` is sent on demand, whatever stands here'),
  low_balance_nano_usd: nanoUsd
    .min(1)
    .nullable()
    .describe('`balance.low` tells of a balance below this, once until it is above it again'),
  budget_percents: z
    .array(z.int().min(1).max(100))
    .max(10)
    .describe('`budget.threshold_reached` tells when this share of a budget is spent, each once'),
};

export const newWebhookSchema = z
  .strictObject({
    url: termFields.url,
    label: termFields.label.default(''),
    events: termFields.events,
    low_balance_nano_usd: termFields.low_balance_nano_usd.default(null),
    budget_percents: termFields.budget_percents.default([80, 100]),
  })
  .meta({
    examples: [
      {
        url: 'https://hooks.example/sift',
        label: 'billing',
        events: ['balance.low', 'top_up.received'],
        low_balance_nano_usd: 5_000_000_000,
      },
    ],
  });

export const webhookChangeSchema = z
  .strictObject({
    url: termFields.url.optional(),
    label: termFields.label.optional(),
    events: termFields.events.optional(),
    low_balance_nano_usd: termFields.low_balance_nano_usd.optional(),
    budget_percents: termFields.budget_percents.optional(),
    status: z
      .enum(['active', 'disabled'])
      .optional()
      .describe('one that was disabled begins anew: its failures are forgotten'),
  })
  .meta({ examples: [{ status: 'active' }] });

export const webhookExample = {
  id: 'wh_pX2c8m1LkQ',
  url: 'https://hooks.example/sift',
  label: 'billing',
  events: ['balance.low', 'top_up.received'],
  low_balance_nano_usd: 5_000_000_000,
  budget_percents: [80, 100],
  status: 'active',
  disabled_reason: null,
  previous_secret_until_ms: null,
  failing_since_ms: null,
  created_at_ms: 1_796_083_200_000,
};

export const webhookSchema = z
  .object({
    id: z.string(),
    ...termFields,
    status: z.enum(['active', 'disabled']),
    disabled_reason: z.string().nullable(),
    previous_secret_until_ms: unixMs
      .nullable()
      .describe('until then the secret before the last rotation signs as well'),
    failing_since_ms: unixMs.nullable().describe('the first failure since the last success'),
    created_at_ms: unixMs,
  })
  .meta({ examples: [webhookExample] });

export const webhookWithSecretSchema = webhookSchema
  .extend({ secret: z.string().describe('signs what is sent; shown this once') })
  .meta({ examples: [{ ...webhookExample, secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' }] });

export const deliveryExample = {
  event_id: 'msg_2KWPBgLlAfxdpx2AI54pPJ85f4W',
  type: 'balance.low',
  status: 'delivered',
  created_at_ms: 1_796_083_200_000,
  next_try_at_ms: null,
  tries: [{ at_ms: 1_796_083_200_012, duration_ms: 84, http_status: 204, error: null }],
};

export const deliverySchema = z
  .object({
    event_id: z.string().describe('the header `webhook-id` of each try'),
    type: z.string(),
    status: z.enum(['pending', 'delivered', 'failed']),
    created_at_ms: unixMs,
    next_try_at_ms: unixMs.nullable(),
    tries: z.array(
      z.object({
        at_ms: unixMs,
        duration_ms: z.int(),
        http_status: z.int().nullable().describe('null: there was no answer'),
        error: z.string().nullable(),
      }),
    ),
  })
  .meta({ examples: [deliveryExample] });

export function termsOf(wire: z.infer<typeof newWebhookSchema>): WebhookTerms {
  return {
    url: wire.url,
    label: wire.label,
    events: [...new Set(wire.events)],
    lowBalanceNanoUsd: wire.low_balance_nano_usd,
    budgetPercents: [...new Set(wire.budget_percents)],
  };
}

export function changeOf(wire: z.infer<typeof webhookChangeSchema>): WebhookChange {
  const { url, label, events, status } = wire;
  const { low_balance_nano_usd: lowBalanceNanoUsd, budget_percents: budgetPercents } = wire;
  return {
    ...(url !== undefined && { url }),
    ...(label !== undefined && { label }),
    ...(events !== undefined && { events: [...new Set(events)] }),
    ...(lowBalanceNanoUsd !== undefined && { lowBalanceNanoUsd }),
    ...(budgetPercents !== undefined && { budgetPercents: [...new Set(budgetPercents)] }),
    ...(status !== undefined && { status }),
  };
}

export function wireWebhook(record: WebhookRecord): z.infer<typeof webhookSchema> {
  return {
    id: record.id,
    url: record.url,
    label: record.label,
    // Those of the list: a test is never subscribed to.
    events: webhookEventTypes.filter((type) => record.events.includes(type)),
    low_balance_nano_usd: record.lowBalanceNanoUsd,
    budget_percents: [...record.budgetPercents],
    status: record.status,
    disabled_reason: record.disabledReason,
    previous_secret_until_ms: record.previousSecretUntilMs,
    failing_since_ms: record.failingSinceMs,
    created_at_ms: record.createdAtMs,
  };
}

export function wireDelivery(delivery: WebhookDelivery): z.infer<typeof deliverySchema> {
  return {
    event_id: delivery.eventId,
    type: delivery.type,
    status: delivery.status,
    created_at_ms: delivery.createdAtMs,
    next_try_at_ms: delivery.nextAtMs,
    tries: delivery.tries.map(({ atMs, durationMs, httpStatus, error }) => ({
      at_ms: atMs,
      duration_ms: durationMs,
      http_status: httpStatus,
      error,
    })),
  };
}
