/** The log of changes that keys and the operator made: who, when, what. It holds no secret. */
import { desc, lt, lte, max } from 'drizzle-orm';
import { auditLog } from '../../db/schema/account.ts';
import type { SyncDb } from '../../db/types.ts';
import type { AuditRecord } from './audit-contract.ts';
import type { Actor } from './key-contract.ts';

/** Rows that are kept; the oldest go first. */
export const auditRowsMax = 100_000;

/** Call everything inside the transaction of the change. */
export class AuditLog {
  readonly #db: SyncDb;

  constructor(db: SyncDb) {
    this.#db = db;
  }

  note(change: {
    readonly actor: Actor;
    readonly action: AuditRecord['action'];
    /** The id of what was changed. */
    readonly object: string;
    readonly detail: Readonly<Record<string, unknown>>;
    readonly nowMs: number;
  }): void {
    const { actor, action, object, detail, nowMs } = change;
    this.#db
      .insert(auditLog)
      .values({
        atMs: nowMs,
        actorKeyId: actor.kind === 'key' ? actor.key.keyId : null,
        action,
        object,
        detail: JSON.stringify(detail),
      })
      .run();
    const newest =
      this.#db
        .select({ id: max(auditLog.id) })
        .from(auditLog)
        .get()?.id ?? 0;
    this.#db
      .delete(auditLog)
      .where(lte(auditLog.id, newest - auditRowsMax))
      .run();
  }

  /** The newest first; those before an id go on from it. */
  page({ beforeId, limit }: { readonly beforeId: number | null; readonly limit: number }) {
    return this.#db
      .select()
      .from(auditLog)
      .where(beforeId === null ? undefined : lt(auditLog.id, beforeId))
      .orderBy(desc(auditLog.id))
      .limit(limit)
      .all()
      .map(({ action, detail, ...row }): AuditRecord => ({
        ...row,
        // Only actions of the contract are written, and the detail as JSON of an object.
        action: action as AuditRecord['action'],
        detail: JSON.parse(detail) as AuditRecord['detail'],
      }));
  }
}
