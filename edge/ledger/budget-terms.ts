/** Sets, lists and removes budgets, of keys and by name. Call everything inside a transaction. */
import { strict as assert } from 'node:assert';
import { and, count, eq, inArray, isNotNull, notInArray, sql } from 'drizzle-orm';
import { budget, budgetLimit, budgetWindow } from '../../db/schema/tenant.ts';
import { isTimeZone } from '../calendar.ts';
import type { SyncDb } from '../../db/types.ts';
import type {
  BudgetRecord,
  BudgetSet,
  BudgetTerms,
  NamedBudget,
} from '../tenant/budget-contract.ts';
import { prepareBudgetStatements } from './budget-statements.ts';
import { neverMs, windowAt } from './budget-windows.ts';
import type { WindowDates } from './budget-windows.ts';

/** Named budgets of a tenant. */
export const budgetsMax = 1_000;

type LimitRow = ReturnType<
  ReturnType<typeof prepareBudgetStatements>['limitsOfNamed']['all']
>[number];

type Owner =
  | { readonly keyId: string; readonly name: null }
  | { readonly keyId: null; readonly name: string };

export class BudgetTermsOfTenant {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareBudgetStatements>;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#statements = prepareBudgetStatements(db);
  }

  named(nowMs: number): NamedBudget[] {
    return toNamed(this.#statements.limitsOfNamed.all({ nowMs }), nowMs);
  }

  find(name: string, nowMs: number): NamedBudget | null {
    const rows = this.#statements.limitsOfNames.all({ names: JSON.stringify([name]), nowMs });
    return toNamed(rows, nowMs)[0] ?? null;
  }

  /** The budgets of all keys that have one, by key. */
  ofKeys(nowMs: number): ReadonlyMap<string, BudgetRecord> {
    return new Map(
      grouped(this.#statements.limitsOfKeys.all({ nowMs }), ({ keyId }) => keyId ?? '').map(
        ([keyId, rows]) => [keyId, toRecord(rows, nowMs)],
      ),
    );
  }

  ofKey(keyId: string, nowMs: number): BudgetRecord | null {
    const rows = this.#statements.limitsOfKey.all({ keyId, nowMs });
    return rows.length === 0 ? null : toRecord(rows, nowMs);
  }

  setNamed(name: string, terms: BudgetTerms, nowMs: number): BudgetSet {
    assert(name !== '', 'a budget has a name');
    const before = this.find(name, nowMs);
    if (before === null && this.#count() >= budgetsMax) return { kind: 'too-many', budgetsMax };
    this.#set({ keyId: null, name }, terms, nowMs);
    const set = this.find(name, nowMs);
    assert(set !== null, 'the budget was just set');
    return { kind: before === null ? 'created' : 'changed', budget: set };
  }

  setOfKey(keyId: string, terms: BudgetTerms | null, nowMs: number): void {
    if (terms === null) this.#remove(eq(budget.keyId, keyId));
    else this.#set({ keyId, name: null }, terms, nowMs);
  }

  /** false if there was none. */
  removeNamed(name: string): boolean {
    return this.#remove(eq(budget.name, name));
  }

  #count(): number {
    const counted = this.#db
      .select({ budgets: count() })
      .from(budget)
      .where(isNotNull(budget.name))
      .get();
    return counted?.budgets ?? 0;
  }

  #set(owner: Owner, { zone, windows }: BudgetTerms, nowMs: number): void {
    assertTerms({ zone, windows });
    const isOwners =
      owner.name === null ? eq(budget.keyId, owner.keyId) : eq(budget.name, owner.name);
    const before = this.#db.select().from(budget).where(isOwners).get();
    const { id: budgetId } =
      before ??
      this.#db
        .insert(budget)
        .values({ ...owner, zone, createdAtMs: nowMs })
        .returning()
        .get();
    if (before && before.zone !== zone) this.#moveTo(zone, budgetId, nowMs);
    const periods = windows.map(({ period }) => period);
    const isGone = and(eq(budgetLimit.budgetId, budgetId), notInArray(budgetLimit.period, periods));
    this.#removeLimits(isGone);
    for (const { period, limitNanoUsd } of windows) {
      this.#db
        .insert(budgetLimit)
        .values({ budgetId, period, limitNanoUsd })
        .onConflictDoUpdate({
          target: [budgetLimit.budgetId, budgetLimit.period],
          set: { limitNanoUsd },
        })
        .run();
    }
  }

  /**
   * Its windows go on, with all that counts in them, as those of the other zone. One that is over
   * goes on too where the other zone's has the same start and a later end.
   */
  #moveTo(zone: string, budgetId: number, nowMs: number): void {
    this.#db.update(budget).set({ zone }).where(eq(budget.id, budgetId)).run();
    const limits = this.#db
      .select({ limitId: budgetLimit.id, period: budgetLimit.period })
      .from(budgetLimit)
      .where(eq(budgetLimit.budgetId, budgetId))
      .all();
    for (const { limitId, period } of limits) {
      const { startMs, endMs } = windowAt(period, zone, nowMs);
      this.#db.run(sql`UPDATE OR IGNORE budget_window SET start_ms = ${startMs}, end_ms = ${endMs}
        WHERE id = (SELECT id FROM budget_window WHERE limit_id = ${limitId}
          AND (start_ms <= ${nowMs} AND end_ms > ${nowMs} OR start_ms = ${startMs})
          ORDER BY end_ms DESC LIMIT 1)`);
    }
  }

  #remove(isOwners: ReturnType<typeof eq>): boolean {
    const gone = this.#db.delete(budget).where(isOwners).returning({ id: budget.id }).get();
    if (gone === undefined) return false;
    this.#removeLimits(eq(budgetLimit.budgetId, gone.id));
    return true;
  }

  #removeLimits(areGone: ReturnType<typeof and>): void {
    const gone = this.#db
      .delete(budgetLimit)
      .where(areGone)
      .returning({ id: budgetLimit.id })
      .all();
    const ids = gone.map(({ id }) => id);
    if (ids.length === 0) return;
    this.#db.delete(budgetWindow).where(inArray(budgetWindow.limitId, ids)).run();
  }
}

function assertTerms({ zone, windows }: BudgetTerms): void {
  assert(isTimeZone(zone), 'a budget has a time zone');
  const periods = new Set(windows.map(({ period }) => period));
  assert(windows.length > 0 && periods.size === windows.length, 'a budget has windows, each once');
  for (const { limitNanoUsd } of windows) {
    assert(Number.isSafeInteger(limitNanoUsd) && limitNanoUsd >= 0, 'a limit is an amount');
  }
}

function toNamed(rows: readonly LimitRow[], nowMs: number): NamedBudget[] {
  return grouped(rows, ({ name }) => name ?? '').map(([name, own]) => ({
    name,
    ...toRecord(own, nowMs),
  }));
}

function grouped(
  rows: readonly LimitRow[],
  by: (row: LimitRow) => string,
): (readonly [string, readonly LimitRow[]])[] {
  return [...Map.groupBy(rows, by)];
}

function toRecord(rows: readonly LimitRow[], nowMs: number): BudgetRecord {
  const [first] = rows;
  assert(first !== undefined, 'a budget has a limit');
  return {
    zone: first.zone,
    createdAtMs: first.createdAtMs,
    windows: rows.map((row) => {
      const { period, limitNanoUsd, spentNanoUsd, heldNanoUsd } = row;
      const { startMs, endMs } = datesOf(row, nowMs);
      return {
        period,
        limitNanoUsd,
        spentNanoUsd: spentNanoUsd ?? 0,
        heldNanoUsd: heldNanoUsd ?? 0,
        startMs,
        resetsAtMs: endMs === neverMs ? null : endMs,
      };
    }),
  };
}

function datesOf({ startMs, endMs, period, zone }: LimitRow, nowMs: number): WindowDates {
  return startMs === null || endMs === null ? windowAt(period, zone, nowMs) : { startMs, endMs };
}
