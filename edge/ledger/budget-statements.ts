/** The SQL of budgets, prepared once. */
import { and, asc, eq, gt, isNotNull, lte, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { budget, budgetLimit, budgetWindow } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';

const value = (name: string) => sql`${sql.placeholder(name)}`;
/** A list of values, which is given as JSON. */
const listed = (name: string) => sql`(SELECT value FROM json_each(${sql.placeholder(name)}))`;

/** Every limit, with its window at `nowMs` where there is one. */
function limitsWhere(db: SyncDb, condition: SQL | undefined) {
  const isNow = and(
    lte(budgetWindow.startMs, value('nowMs')),
    gt(budgetWindow.endMs, value('nowMs')),
  );
  return db
    .select({
      name: budget.name,
      keyId: budget.keyId,
      zone: budget.zone,
      createdAtMs: budget.createdAtMs,
      limitId: budgetLimit.id,
      period: budgetLimit.period,
      limitNanoUsd: budgetLimit.limitNanoUsd,
      windowId: budgetWindow.id,
      startMs: budgetWindow.startMs,
      endMs: budgetWindow.endMs,
      heldNanoUsd: budgetWindow.heldNanoUsd,
      spentNanoUsd: budgetWindow.spentNanoUsd,
    })
    .from(budget)
    .innerJoin(budgetLimit, eq(budgetLimit.budgetId, budget.id))
    .leftJoin(budgetWindow, and(eq(budgetWindow.limitId, budgetLimit.id), isNow))
    .where(condition)
    .orderBy(asc(budget.name), asc(budgetLimit.id))
    .prepare();
}

export function prepareBudgetStatements(db: SyncDb) {
  return {
    limitsOfKey: limitsWhere(db, eq(budget.keyId, value('keyId'))),
    limitsOfNames: limitsWhere(db, sql`${budget.name} IN ${listed('names')}`),
    limitsOfKeys: limitsWhere(db, isNotNull(budget.keyId)),
    limitsOfNamed: limitsWhere(db, isNotNull(budget.name)),
    names: db.select({ name: budget.name }).from(budget).where(isNotNull(budget.name)).prepare(),
    windows: db
      .select({
        name: budget.name,
        period: budgetLimit.period,
        limitNanoUsd: budgetLimit.limitNanoUsd,
        windowId: budgetWindow.id,
        endMs: budgetWindow.endMs,
        heldNanoUsd: budgetWindow.heldNanoUsd,
        spentNanoUsd: budgetWindow.spentNanoUsd,
      })
      .from(budgetWindow)
      .innerJoin(budgetLimit, eq(budgetLimit.id, budgetWindow.limitId))
      .innerJoin(budget, eq(budget.id, budgetLimit.budgetId))
      .where(sql`${budgetWindow.id} IN ${listed('windowIds')}`)
      .prepare(),
    hold: db
      .update(budgetWindow)
      .set({ heldNanoUsd: sql`${budgetWindow.heldNanoUsd} + ${sql.placeholder('amountNanoUsd')}` })
      .where(sql`${budgetWindow.id} IN ${listed('windowIds')}`)
      .prepare(),
    settle: db
      .update(budgetWindow)
      .set({
        heldNanoUsd: sql`${budgetWindow.heldNanoUsd} - ${sql.placeholder('heldNanoUsd')}`,
        spentNanoUsd: sql`${budgetWindow.spentNanoUsd} + ${sql.placeholder('costNanoUsd')}`,
      })
      .where(sql`${budgetWindow.id} IN ${listed('windowIds')}`)
      .prepare(),
    openWindow: db
      .insert(budgetWindow)
      .values({
        limitId: value('limitId'),
        startMs: value('startMs'),
        endMs: value('endMs'),
        heldNanoUsd: 0,
        spentNanoUsd: 0,
      })
      .returning({ id: budgetWindow.id })
      .prepare(),
    forgetWindows: db
      .delete(budgetWindow)
      .where(
        and(
          eq(budgetWindow.limitId, value('limitId')),
          lte(budgetWindow.endMs, value('endedMs')),
          eq(budgetWindow.heldNanoUsd, 0),
        ),
      )
      .prepare(),
  };
}
