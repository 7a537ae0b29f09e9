/**
 * Sends what is due of one tenant. Each webhook has one delivery under way at a time and none waits
 * for another, so a slow receiver holds up itself alone. It runs in the tenant's Durable Object and
 * in Node's process alike.
 */
import { Webhook } from 'standardwebhooks';
import type { Tenant } from '../tenant/tenant-contract.ts';
import type { DueDelivery, WebhookOutcome } from '../tenant/webhook-contract.ts';
import { refuseReceiver } from './receiver-rule.ts';

/** A receiver has so long to answer; what it has to do takes it after its answer. */
export const answerMsMax = 15_000;

/** Sends without following redirects, reads no body, and rejects where there is no answer. */
export type PostWebhook = (request: {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly signal: AbortSignal;
}) => Promise<{ readonly status: number; readonly retryAfter: string | null }>;

export interface Sender {
  /**
   * Sends until nothing is due and nothing under way.
   * @returns the time at which to run again; null: after a change
   * @throws what the tenant throws; what was sent and not recorded is due again
   */
  run(): Promise<number | null>;
  /** Something may have become due: a run that is under way looks again. */
  wake(): void;
}

export interface SenderOptions {
  readonly tenant: Pick<Tenant, 'dueWebhooks' | 'recordWebhookTry'>;
  readonly post: PostWebhook;
  /** Patterns of the hosts that the operator allows. */
  readonly hosts: readonly string[];
  readonly clock: { nowMs(): number };
  /** Ends what is under way: it is due again at the next start. */
  readonly stop?: AbortSignal;
}

export function createSender(options: SenderOptions): Sender {
  const { tenant, stop } = options;
  const busy = new Map<string, Promise<void>>();
  let running: Promise<number | null> | null = null;
  let isWoken = false;
  let failure: { readonly reason: unknown } | null = null;
  let awake: PromiseWithResolvers<void> = Promise.withResolvers();

  const wake = (): void => {
    isWoken = true;
    awake.resolve();
  };

  const begin = (delivery: DueDelivery): void => {
    const sent = deliver(delivery, options)
      .then(async (outcome) => {
        if (outcome !== null) await tenant.recordWebhookTry(outcome);
      })
      .catch((reason: unknown) => void (failure = { reason }))
      .finally(() => busy.delete(delivery.webhookId));
    busy.set(delivery.webhookId, sent);
  };

  const finish = async (): Promise<null> => {
    await Promise.all(busy.values());
    const failed = failure;
    failure = null;
    if (failed !== null) throw failed.reason;
    return null;
  };

  const runUntilIdle = async (): Promise<number | null> => {
    for (;;) {
      isWoken = false;
      awake = Promise.withResolvers();
      if (failure !== null || stop?.aborted) return finish();
      const { due, nextAtMs } = await tenant.dueWebhooks([...busy.keys()]);
      for (const delivery of due) begin(delivery);
      if (busy.size > 0) await Promise.race([...busy.values(), awake.promise]);
      else if (!isWoken) return nextAtMs;
    }
  };

  return {
    run: () => (running ??= runUntilIdle().finally(() => (running = null))),
    wake,
  };
}

/** Returns null where the sender was stopped: that says nothing about the receiver. */
async function deliver(
  delivery: DueDelivery,
  { post, hosts, clock, stop }: SenderOptions,
): Promise<WebhookOutcome | null> {
  const { webhookId, eventId, url, body } = delivery;
  const beganAtMs = clock.nowMs();
  const outcome = (answer: Pick<WebhookOutcome, 'httpStatus' | 'error' | 'retryAfterMs'>) => ({
    webhookId,
    eventId,
    durationMs: Math.max(0, clock.nowMs() - beganAtMs),
    ...answer,
  });
  const refusal = refuseReceiver(url, hosts);
  if (refusal !== null) {
    return outcome({ httpStatus: null, error: `its URL ${refusal}`, retryAfterMs: null });
  }
  const late = AbortSignal.timeout(answerMsMax);
  const signal = stop === undefined ? late : AbortSignal.any([stop, late]);
  try {
    const headers = headersOf(delivery, beganAtMs);
    const { status, retryAfter } = await post({ url: new URL(url), headers, body, signal });
    const isRedirect = status >= 300 && status < 400;
    const error = isRedirect ? 'redirects are not followed' : null;
    return outcome({ httpStatus: status, error, retryAfterMs: secondsOf(retryAfter) });
  } catch (failure) {
    if (stop?.aborted) return null;
    const error = late.aborted
      ? `no answer within ${answerMsMax / 1_000} seconds`
      : reasonOf(failure);
    return outcome({ httpStatus: null, error: error.slice(0, 300), retryAfterMs: null });
  }
}

/** The reason is shown to the webhook's owner. */
function reasonOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}

/** Each secret signs, so that a receiver may hold the new one or the one before. */
function headersOf({ eventId, secrets, body }: DueDelivery, nowMs: number) {
  const now = new Date(nowMs);
  return {
    'content-type': 'application/json',
    'user-agent': 'sift-webhooks',
    'webhook-id': eventId,
    'webhook-timestamp': String(Math.floor(nowMs / 1_000)),
    'webhook-signature': secrets
      .map((secret) => new Webhook(secret).sign(eventId, now, body))
      .join(' '),
  };
}

function secondsOf(retryAfter: string | null): number | null {
  return retryAfter !== null && /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) * 1_000 : null;
}
