/**
 * Recomputes from the entries everything that is kept beside them. It reads the whole ledger, so
 * it is for operators and tests, not for a request.
 */
import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { account, budgetWindow, entry, hold, quota, usageDaily } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import { costNanoUsd } from '../money.ts';

const pageRows = 10_000;

/** Sentences about what does not agree; none when all does. */
export function auditLedger(db: SyncDb): string[] {
  return [
    ...balances(db),
    ...holds(db),
    ...requestsInFlight(db),
    ...dailyUsage(db),
    ...postedCosts(db),
    ...budgetWindows(db),
  ];
}

function balances(db: SyncDb): string[] {
  const kept = db.select().from(account).get();
  const summed = db
    .select({
      granted: sql<number>`coalesce(sum(${entry.grantedNanoUsd}), 0)`,
      toppedUp: sql<number>`coalesce(sum(${entry.toppedUpNanoUsd}), 0)`,
    })
    .from(entry)
    .get();
  const held = db
    .select({ amount: sql<number>`coalesce(sum(${hold.amountNanoUsd}), 0)` })
    .from(hold)
    .get();
  return [
    ...compare('granted balance', kept?.grantedNanoUsd, summed?.granted),
    ...compare('topped-up balance', kept?.toppedUpNanoUsd, summed?.toppedUp),
    ...compare('held amount', kept?.heldNanoUsd, held?.amount),
  ];
}

/** A pending entry has an open hold of its amount or exactly one resolution, never both. */
function holds(db: SyncDb): string[] {
  const wrong = db.all<{ requestId: string }>(sql`
    SELECT p.request_id AS requestId FROM ${entry} p
    LEFT JOIN ${hold} h ON h.request_id = p.request_id AND h.entry_id = p.id
      AND h.amount_nano_usd - h.extended_nano_usd = p.amount_nano_usd
    LEFT JOIN ${entry} r ON r.refers_to = p.id AND r.kind IN ('posted', 'voided')
      AND r.request_id = p.request_id
    WHERE p.kind = 'pending'
    GROUP BY p.id HAVING count(h.request_id) + count(r.id) <> 1
    LIMIT 100`);
  const orphans = db.all<{ requestId: string }>(sql`
    SELECT h.request_id AS requestId FROM ${hold} h
    LEFT JOIN ${entry} p ON p.id = h.entry_id AND p.kind = 'pending'
    WHERE p.id IS NULL LIMIT 100`);
  return [
    ...wrong.map(({ requestId }) => `request ${requestId} is not either open or resolved once`),
    ...orphans.map(({ requestId }) => `the hold of request ${requestId} has no pending entry`),
  ];
}

function requestsInFlight(db: SyncDb): string[] {
  const wrong = db.all<{ owner: string; kept: number; counted: number }>(sql`
    SELECT q.owner AS owner, q.in_flight AS kept,
      (SELECT count(*) FROM ${hold} h WHERE q.owner = '' OR h.key_id = q.owner) AS counted
    FROM ${quota} q WHERE kept <> counted LIMIT 100`);
  return wrong.map(
    ({ owner, kept, counted }) =>
      `${owner === '' ? 'the tenant' : `key ${owner}`} counts ${kept} requests in flight, not ${counted}`,
  );
}

function dailyUsage(db: SyncDb): string[] {
  const columns = sql`model, key_id, sum(requests) AS requests, sum(input_uncached), sum(input_cached),
    sum(output_text), sum(output_reasoning), sum(cost_nano_usd)`;
  const posted = sql`
    SELECT model, key_id, count(*), sum(input_uncached),
      coalesce(sum(input_cached), 0), sum(output_text), sum(output_reasoning), -sum(amount_nano_usd)
    FROM ${entry} WHERE kind = 'posted' GROUP BY model, key_id`;
  const kept = sql`SELECT ${columns} FROM ${usageDaily} GROUP BY model, key_id`;
  const wrong = db.all<{ model: string; key_id: string }>(sql`
    SELECT model, key_id FROM (SELECT * FROM (${posted}) EXCEPT SELECT * FROM (${kept}))
    UNION SELECT model, key_id FROM (SELECT * FROM (${kept}) EXCEPT SELECT * FROM (${posted}))
    LIMIT 100`);
  return wrong.map(
    (row) => `the daily usage of ${row.model}, key ${row.key_id}, is not its entries'`,
  );
}

/** A window has held and spent what the holds and postings that name it say. */
function budgetWindows(db: SyncDb): string[] {
  const named = (rows: SQL, amount: SQL) => sql`
    SELECT value AS id, sum(${amount}) AS amount FROM (${rows}), json_each(budget_windows) GROUP BY value`;
  const holding = named(
    sql`SELECT * FROM ${hold} WHERE budget_windows IS NOT NULL`,
    sql`amount_nano_usd`,
  );
  const posted = named(
    sql`SELECT * FROM ${entry} WHERE kind = 'posted' AND budget_windows IS NOT NULL`,
    sql`-amount_nano_usd`,
  );
  const wrong = db.all<{ id: number }>(sql`
    SELECT w.id AS id FROM ${budgetWindow} w
    LEFT JOIN (${holding}) h ON h.id = w.id LEFT JOIN (${posted}) p ON p.id = w.id
    WHERE w.held_nano_usd <> coalesce(h.amount, 0) OR w.spent_nano_usd <> coalesce(p.amount, 0)
    LIMIT 100`);
  return wrong.map(({ id }) => `the window ${id} of a budget does not hold what its entries say`);
}

/** Every posting is what its usage costs at its price, less what the hold did not cover. */
function postedCosts(db: SyncDb): string[] {
  const problems: string[] = [];
  for (let afterId = 0; ;) {
    const rows = db
      .select()
      .from(entry)
      .where(sql`${entry.kind} = 'posted' AND ${entry.id} > ${afterId}`)
      .orderBy(entry.id)
      .limit(pageRows)
      .all();
    for (const row of rows) problems.push(...postedCost(row));
    const last = rows.at(-1);
    if (last === undefined || problems.length >= 100) return problems;
    afterId = last.id;
  }
}

function postedCost(row: typeof entry.$inferSelect): string[] {
  const { inputUncached, outputText, outputReasoning } = row;
  const { priceId, priceInputCached, priceInputUncached, priceOutput } = row;
  if (inputUncached === null || outputText === null || outputReasoning === null) {
    return [`entry ${row.id} is posted without its usage`];
  }
  if (
    priceId === null ||
    priceInputCached === null ||
    priceInputUncached === null ||
    priceOutput === null
  ) {
    return [`entry ${row.id} is posted without its price`];
  }
  const cost = costNanoUsd(
    { inputUncached, inputCached: row.inputCached, outputText, outputReasoning },
    {
      id: priceId,
      inputCached: priceInputCached,
      inputUncached: priceInputUncached,
      output: priceOutput,
    },
  );
  // The excess is absent where there is none.
  const kept = -row.amountNanoUsd + (row.excessNanoUsd ?? 0);
  return compare(`cost of entry ${row.id}`, kept, cost);
}

function compare(what: string, kept: number | undefined, computed: number | undefined): string[] {
  if (kept !== undefined && kept - (computed ?? NaN) === 0) return [];
  return [`the ${what} is ${kept}, and ${computed} by the entries`];
}
