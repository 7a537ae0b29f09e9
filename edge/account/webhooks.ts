/** Webhooks of an account: where its events are sent, their log, tests and rotation of secrets. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import type { WebhookSent, WebhookTerms } from '../tenant/webhook-contract.ts';
import { refuseReceiver } from '../webhooks/receiver-rule.ts';
import { webhooksMax } from '../webhooks/webhook-list.ts';
import { waitingMax } from '../webhooks/outbox.ts';
import { accountEndpoint } from './account-endpoint.ts';
import type { AccountEndpoint } from './account-endpoint.ts';
import { idempotencyHeaders, idempotentBytes } from './idempotent-bytes.ts';
import {
  changeOf,
  deliveryExample,
  deliverySchema,
  newWebhookSchema,
  termsOf,
  webhookChangeSchema,
  webhookExample,
  webhookSchema,
  webhookWithSecretSchema,
  wireDelivery,
  wireWebhook,
} from './webhook-wire.ts';

const secretBytes = 32;
const params = z.strictObject({ webhook: z.string().max(64) });
const deliveryParams = params.extend({ event: z.string().max(64) });
const sentSchema = z
  .object({ event_id: z.string() })
  .meta({ examples: [{ event_id: 'msg_2KWPBgLlAfxdpx2AI54pPJ85f4W' }] });

const list = accountEndpoint(
  {
    method: 'get',
    path: '/webhooks',
    summary: 'Webhooks of the account',
    description: 'Without their secrets.',
    scope: 'admin',
    answer: z
      .object({ webhooks: z.array(webhookSchema) })
      .meta({ examples: [{ webhooks: [webhookExample] }] }),
  },
  async ({ tenant }) => ({ webhooks: (await tenant.webhooks()).map(wireWebhook) }),
);

const create = accountEndpoint(
  {
    method: 'post',
    path: '/webhooks',
    summary: 'Create a webhook',
    description: 'The answer alone holds its secret.',
    scope: 'admin',
    headers: idempotencyHeaders,
    body: newWebhookSchema,
    answer: webhookWithSecretSchema,
    status: 201,
  },
  async (input) => {
    const { services, tenant, actor, body } = input;
    const terms = termsOf(body);
    checkTerms(services, terms);
    const random = idempotentBytes(input, 'webhook');
    const id = `wh_${Buffer.from(random.bytes(9)).toString('base64url')}`;
    const secret = secretOf(random);
    const created = await tenant.createWebhook({ ...terms, id, secret }, actor);
    if (created === null) {
      throw new ApiError('conflict', `The account has ${webhooksMax} webhooks; delete one first.`);
    }
    if (created.url !== terms.url) {
      const message = 'This Idempotency-Key was used for another webhook.';
      throw new ApiError('idempotency_key_reused', message);
    }
    return { ...wireWebhook(created), secret };
  },
);

const one = accountEndpoint(
  {
    method: 'get',
    path: '/webhooks/{webhook}',
    summary: 'One webhook',
    description: 'Without its secret.',
    scope: 'admin',
    params,
    answer: webhookSchema,
  },
  async ({ tenant, params: { webhook: id } }) => {
    const found = (await tenant.webhooks()).find((each) => each.id === id);
    if (found === undefined) throw noWebhook(id);
    return wireWebhook(found);
  },
);

const change = accountEndpoint(
  {
    method: 'patch',
    path: '/webhooks/{webhook}',
    summary: 'Change a webhook',
    description: 'What is left out stays. A disabled one is sent nothing until it is active again.',
    scope: 'admin',
    params,
    body: webhookChangeSchema,
    answer: webhookSchema,
  },
  async ({ services, tenant, actor, params: { webhook: id }, body }) => {
    const before = (await tenant.webhooks()).find((each) => each.id === id);
    if (before === undefined) throw noWebhook(id);
    const changes = changeOf(body);
    checkTerms(services, { ...before, ...changes });
    const changed = await tenant.updateWebhook(id, changes, actor);
    if (changed === null) throw noWebhook(id);
    return wireWebhook(changed);
  },
);

const remove = accountEndpoint(
  {
    method: 'delete',
    path: '/webhooks/{webhook}',
    summary: 'Delete a webhook',
    description: 'It is gone with its log, and what it waits for is not sent.',
    scope: 'admin',
    params,
    answer: z
      .object({ id: z.string(), deleted: z.literal(true) })
      .meta({ examples: [{ id: 'wh_pX2c8m1LkQ', deleted: true }] }),
  },
  async ({ tenant, actor, params: { webhook: id } }) => {
    if (!(await tenant.deleteWebhook(id, actor))) throw noWebhook(id);
    return { id, deleted: true as const };
  },
);

const rotate = accountEndpoint(
  {
    method: 'post',
    path: '/webhooks/{webhook}/secret',
    summary: 'Rotate the secret of a webhook',
    description:
      'The answer alone holds the new secret. For 24 hours the one before signs as well, so ' +
      'receivers change over without missing anything.',
    scope: 'admin',
    params,
    headers: idempotencyHeaders,
    answer: webhookWithSecretSchema,
  },
  async (input) => {
    const { webhook: id } = input.params;
    const secret = secretOf(idempotentBytes(input, `secret of ${id}`));
    const rotated = await input.tenant.rotateWebhookSecret({ id, secret }, input.actor);
    if (rotated === null) throw noWebhook(id);
    return { ...wireWebhook(rotated), secret };
  },
);

const test = accountEndpoint(
  {
    method: 'post',
    path: '/webhooks/{webhook}/test',
    summary: 'Send a test event',
    description: 'Sends `webhook.test` to that webhook; its log says what became of it.',
    scope: 'admin',
    params,
    answer: sentSchema,
  },
  async ({ tenant, actor, params: { webhook: id } }) =>
    sentOf(await tenant.testWebhook(id, actor), id),
);

const deliveries = accountEndpoint(
  {
    method: 'get',
    path: '/webhooks/{webhook}/deliveries',
    summary: 'Log of a webhook',
    description: 'Its deliveries of the last 30 days with each try, the newest first.',
    scope: 'admin',
    params,
    query: z.strictObject({
      before: z.string().max(64).optional().describe('the last event of the page before'),
      limit: z.coerce.number().int().min(1).max(100).default(20),
    }),
    answer: z
      .object({ deliveries: z.array(deliverySchema) })
      .meta({ examples: [{ deliveries: [deliveryExample] }] }),
  },
  async ({ tenant, params: { webhook: id }, query: { before, limit } }) => {
    const page = { id, beforeEvent: before ?? null, limit };
    const found = await tenant.webhookDeliveries(page);
    if (found === null) throw noWebhook(id);
    return { deliveries: found.map(wireDelivery) };
  },
);

const resend = accountEndpoint(
  {
    method: 'post',
    path: '/webhooks/{webhook}/deliveries/{event}/resend',
    summary: 'Send an event again',
    description: 'Under the same id, with all of its tries.',
    scope: 'admin',
    params: deliveryParams,
    answer: sentSchema,
  },
  async ({ tenant, actor, params: { webhook: id, event: eventId } }) =>
    sentOf(await tenant.resendWebhook({ id, eventId }, actor), id),
);

/** A parameter of the public API is the rest of the path, so that longer paths stand first. */
export const webhookEndpoints: readonly AccountEndpoint[] = [
  list,
  create,
  resend,
  deliveries,
  test,
  rotate,
  one,
  change,
  remove,
];

function secretOf(random: { bytes(count: number): Uint8Array }): string {
  return `whsec_${Buffer.from(random.bytes(secretBytes)).toString('base64')}`;
}

function noWebhook(id: string): ApiError {
  return new ApiError('not_found', `There is no webhook ${id}.`, { param: 'webhook' });
}

function checkTerms({ settings }: Services, terms: WebhookTerms): void {
  const refusal = refuseReceiver(terms.url, settings.webhookHosts ?? []);
  if (refusal !== null) {
    throw new ApiError('invalid_value', `The URL ${refusal}.`, { param: 'url' });
  }
  if (terms.events.includes('balance.low') && terms.lowBalanceNanoUsd === null) {
    const message = "The event 'balance.low' needs 'low_balance_nano_usd'.";
    throw new ApiError('invalid_value', message, { param: 'low_balance_nano_usd' });
  }
}

/** @throws ApiError for a test or an event that is not sent. */
function sentOf(sent: WebhookSent, id: string): z.infer<typeof sentSchema> {
  switch (sent.kind) {
    case 'sent':
      return { event_id: sent.eventId };
    case 'missing':
      throw new ApiError('not_found', `The webhook ${id} or its event does not exist.`);
    case 'disabled':
      throw new ApiError('conflict', `The webhook ${id} is disabled; make it active first.`);
    case 'too-many':
      throw new ApiError('conflict', `${waitingMax} events wait for the webhook ${id} already.`);
  }
}
