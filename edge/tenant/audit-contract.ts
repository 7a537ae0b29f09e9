/** The log of what was changed through the API, and by whom. */
import type { Actor } from './key-contract.ts';

export const auditActions = [
  'key.created',
  'key.updated',
  'budget.put',
  'budget.deleted',
  'webhook.created',
  'webhook.updated',
  'webhook.deleted',
  'webhook.secret_rotated',
  'webhook.tested',
  'webhook.resent',
  'checkout.created',
] as const;

export interface AuditRecord {
  readonly id: number;
  readonly atMs: number;
  /** null: the operator. */
  readonly actorKeyId: string | null;
  readonly action: (typeof auditActions)[number];
  /** The id of what was changed. */
  readonly object: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

export interface TenantAudit {
  /** Notes an action that changed nothing of the tenant's own, such as an order elsewhere. */
  noteAction(
    action: Pick<AuditRecord, 'action' | 'object' | 'detail'>,
    actor: Actor,
  ): Promise<void>;
  /** The newest first, before that id. */
  auditLog(page: {
    readonly beforeId: number | null;
    readonly limit: number;
  }): Promise<AuditRecord[]>;
}
