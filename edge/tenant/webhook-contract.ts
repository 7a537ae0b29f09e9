/** Webhooks of a tenant: where events are sent, what is due, and what became of it. */
import type { Actor } from './key-contract.ts';

export const webhookEventTypes = [
  'balance.low',
  'budget.threshold_reached',
  'top_up.received',
  'key.expiring',
] as const;
/** `webhook.test` is sent on demand alone, whatever the webhook asks for. */
export type WebhookEventType = (typeof webhookEventTypes)[number] | 'webhook.test';

export interface WebhookTerms {
  readonly url: string;
  readonly label: string;
  readonly events: readonly WebhookEventType[];
  readonly lowBalanceNanoUsd: number | null;
  readonly budgetPercents: readonly number[];
}

export interface WebhookRecord extends WebhookTerms {
  readonly id: string;
  readonly status: 'active' | 'disabled';
  readonly disabledReason: string | null;
  /** The secret before the last rotation signs as well until then; null: there is none. */
  readonly previousSecretUntilMs: number | null;
  readonly failingSinceMs: number | null;
  readonly createdAtMs: number;
}

export interface NewWebhook extends WebhookTerms {
  readonly id: string;
  readonly secret: string;
}

export type WebhookChange = Partial<WebhookTerms> & {
  readonly status?: WebhookRecord['status'];
};

export interface WebhookTry {
  readonly atMs: number;
  readonly durationMs: number;
  readonly httpStatus: number | null;
  readonly error: string | null;
}

export interface WebhookDelivery {
  readonly eventId: string;
  readonly type: string;
  readonly status: 'pending' | 'delivered' | 'failed';
  readonly createdAtMs: number;
  /** null once it is delivered or given up. */
  readonly nextAtMs: number | null;
  readonly tries: readonly WebhookTry[];
}

/** A delivery whose time has come. */
export interface DueDelivery {
  readonly webhookId: string;
  readonly eventId: string;
  readonly url: string;
  /** All of them sign; the newest is first. */
  readonly secrets: readonly string[];
  readonly body: string;
}

export interface DueDeliveries {
  /** The first due delivery of each webhook. */
  readonly due: readonly DueDelivery[];
  /** The time at which to ask again; null: only after another change. */
  readonly nextAtMs: number | null;
}

export interface WebhookOutcome extends Omit<WebhookTry, 'atMs'> {
  readonly webhookId: string;
  readonly eventId: string;
  /** The receiver asks not to be tried again for so long. */
  readonly retryAfterMs: number | null;
}

/** The event of a delivery that was asked for; `disabled` webhooks are sent nothing. */
export type WebhookSent =
  | { readonly kind: 'sent'; readonly eventId: string }
  | { readonly kind: 'missing' | 'disabled' | 'too-many' };

export interface TenantWebhooks {
  webhooks(): Promise<WebhookRecord[]>;
  /** Returns what there is under that id already, or null when there are too many. */
  createWebhook(input: NewWebhook, actor: Actor): Promise<WebhookRecord | null>;
  /** null when there is none of that id. */
  updateWebhook(id: string, change: WebhookChange, actor: Actor): Promise<WebhookRecord | null>;
  deleteWebhook(id: string, actor: Actor): Promise<boolean>;
  rotateWebhookSecret(
    input: { readonly id: string; readonly secret: string },
    actor: Actor,
  ): Promise<WebhookRecord | null>;
  testWebhook(id: string, actor: Actor): Promise<WebhookSent>;
  /** The newest deliveries first, before that event; null when there is no such webhook. */
  webhookDeliveries(page: {
    readonly id: string;
    readonly beforeEvent: string | null;
    readonly limit: number;
  }): Promise<WebhookDelivery[] | null>;
  resendWebhook(
    named: { readonly id: string; readonly eventId: string },
    actor: Actor,
  ): Promise<WebhookSent>;
  /** Deliveries whose time has come, of webhooks that are not busy with another. */
  dueWebhooks(busy: readonly string[]): Promise<DueDeliveries>;
  recordWebhookTry(outcome: WebhookOutcome): Promise<void>;
}

export const webhookMethods = [
  'webhooks',
  'createWebhook',
  'updateWebhook',
  'deleteWebhook',
  'rotateWebhookSecret',
  'testWebhook',
  'webhookDeliveries',
  'resendWebhook',
  'dueWebhooks',
  'recordWebhookTry',
] as const satisfies readonly (keyof TenantWebhooks)[];
