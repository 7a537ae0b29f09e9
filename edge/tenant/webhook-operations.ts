/** The calls of a tenant about its webhooks, each in one transaction. */
import type { Committer } from '../../db/group-commit.ts';
import type { SyncDb } from '../../db/types.ts';
import { AccountEvents } from '../webhooks/account-events.ts';
import { Outbox } from '../webhooks/outbox.ts';
import { WebhookList } from '../webhooks/webhook-list.ts';
import type { AuditLog } from './audit-log.ts';
import type { TenantWebhooks, WebhookSent } from './webhook-contract.ts';

export interface WebhookStages {
  readonly webhooks: WebhookList;
  readonly outbox: Outbox;
  /** Deliveries may be due from then on. */
  readonly onDue: (atMs: number) => void;
  /** To be called in the transaction of each change of the balance. */
  balanceChanged(nowMs: number): void;
  toppedUp(credited: Parameters<AccountEvents['toppedUp']>[0]): void;
  /** To be called with the windows in which a cost was counted, in its transaction. */
  budgetsSpent(windowIds: readonly number[] | null, nowMs: number): void;
  /** Tells of keys that expire soon; the answer is the time to ask again, or null. */
  tellOfExpiringKeys(nowMs: number): number | null;
}

export function createWebhookStages(
  db: SyncDb,
  options: {
    readonly random: { bytes(count: number): Uint8Array };
    readonly onDue: ((atMs: number) => void) | undefined;
  },
): WebhookStages {
  const { random, onDue = () => {} } = options;
  const webhooks = new WebhookList(db);
  const outbox = new Outbox(db, { webhooks, random });
  const events = new AccountEvents(db, { webhooks, outbox });
  return {
    webhooks,
    outbox,
    onDue,
    balanceChanged(nowMs) {
      if (events.balanceChanged(nowMs)) onDue(nowMs);
    },
    toppedUp(credited) {
      if (events.toppedUp(credited)) onDue(credited.nowMs);
    },
    budgetsSpent(windowIds, nowMs) {
      if (events.budgetsSpent(windowIds, nowMs)) onDue(nowMs);
    },
    tellOfExpiringKeys: (nowMs) => events.tellOfExpiringKeys(nowMs),
  };
}

export interface WebhookContext {
  readonly committer: Committer;
  readonly nowMs: () => number;
  readonly auditLog: AuditLog;
}

export function webhookOperations(stages: WebhookStages, context: WebhookContext): TenantWebhooks {
  return { ...listOperations(stages, context), ...deliveryOperations(stages, context) };
}

function listOperations(stages: WebhookStages, context: WebhookContext) {
  const { webhooks, onDue } = stages;
  const { committer, nowMs: now, auditLog } = context;
  const run = <Result>(work: (nowMs: number) => Result) => committer.run(() => work(now()));
  // A balance that is low already is told at once, and keys may expire soon.
  const lookAgain = (nowMs: number): void => {
    stages.balanceChanged(nowMs);
    onDue(nowMs);
  };
  return {
    webhooks: () => committer.runUnsynced(() => webhooks.list()),
    createWebhook: (input, actor) =>
      run((nowMs) => {
        const isNew = webhooks.get(input.id) === null;
        const created = webhooks.create({ ...input, nowMs });
        if (created === null || !isNew) return created;
        const { id, secret: _, ...detail } = input;
        auditLog.note({ actor, action: 'webhook.created', object: id, detail, nowMs });
        lookAgain(nowMs);
        return created;
      }),
    updateWebhook: (id, change, actor) =>
      run((nowMs) => {
        const changed = webhooks.change(id, change);
        if (changed === null) return null;
        auditLog.note({ actor, action: 'webhook.updated', object: id, detail: change, nowMs });
        lookAgain(nowMs);
        return changed;
      }),
    deleteWebhook: (id, actor) =>
      run((nowMs) => {
        if (!webhooks.remove(id)) return false;
        auditLog.note({ actor, action: 'webhook.deleted', object: id, detail: {}, nowMs });
        return true;
      }),
    rotateWebhookSecret: (input, actor) =>
      run((nowMs) => {
        const rotated = webhooks.rotate({ ...input, nowMs });
        const action = 'webhook.secret_rotated';
        if (rotated !== null) {
          auditLog.note({ actor, action, object: input.id, detail: {}, nowMs });
        }
        return rotated;
      }),
  } satisfies Partial<TenantWebhooks>;
}

function deliveryOperations(stages: WebhookStages, context: WebhookContext) {
  const { webhooks, outbox, onDue } = stages;
  const { committer, nowMs: now, auditLog } = context;
  const run = <Result>(work: (nowMs: number) => Result) => committer.run(() => work(now()));
  const noted = (sent: WebhookSent, change: Omit<Parameters<AuditLog['note']>[0], 'detail'>) => {
    if (sent.kind !== 'sent') return sent;
    auditLog.note({ ...change, detail: { event: sent.eventId } });
    onDue(change.nowMs);
    return sent;
  };
  return {
    testWebhook: (id, actor) =>
      run((nowMs) => {
        const change = { actor, action: 'webhook.tested', object: id, nowMs } as const;
        return noted(outbox.test(id, nowMs), change);
      }),
    resendWebhook: ({ id, eventId }, actor) =>
      run((nowMs) => {
        const change = { actor, action: 'webhook.resent', object: id, nowMs } as const;
        return noted(outbox.resend(id, eventId, nowMs), change);
      }),
    webhookDeliveries: (page) =>
      committer.runUnsynced(() =>
        webhooks.get(page.id) === null ? null : outbox.deliveries(page),
      ),
    // The disk is waited for: what a receiver hears of is not to be lost with the power.
    dueWebhooks: (busy) =>
      run((nowMs) => {
        const expiryAtMs = stages.tellOfExpiringKeys(nowMs) ?? Infinity;
        const nextAtMs = Math.min(expiryAtMs, outbox.nextAtMs(nowMs) ?? Infinity);
        const due = outbox.due(busy, nowMs);
        return { due, nextAtMs: nextAtMs === Infinity ? null : nextAtMs };
      }),
    recordWebhookTry: (outcome) => run((nowMs) => outbox.record(outcome, nowMs)),
  } satisfies Partial<TenantWebhooks>;
}
