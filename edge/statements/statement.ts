/**
 * The statement of one month: opening balance, what came in, what was spent, what was corrected and
 * the closing balance, each summed from the ledger's entries alone.
 */
import { strict as assert } from 'node:assert';
import { calendarOf } from '../calendar.ts';
import { ApiError } from '../errors.ts';
import type {
  BalanceChange,
  StatementCorrection,
  StatementCredit,
  StatementPart,
  StatementSpend,
} from '../tenant/statement-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';

/** Credits and corrections that one statement lists; a longer one is left to the export. */
export const statementLinesMax = 10_000;

export interface Statement {
  readonly tenant: string;
  /** YYYY-MM */
  readonly month: string;
  readonly timeZone: string;
  readonly fromMs: number;
  /** Entries before this instant are in it: the month's end, or now while the month goes on. */
  readonly toMs: number;
  readonly isComplete: boolean;
  readonly opening: BalanceChange;
  readonly credits: readonly StatementCredit[];
  readonly spend: readonly (StatementSpend & { readonly keyLabel: string })[];
  readonly corrections: readonly StatementCorrection[];
  readonly closing: BalanceChange;
  /** Reserved at the end of the statement by requests that ran then. */
  readonly openHolds: StatementPart['openHolds'];
}

export const nothing: BalanceChange = { grantedNanoUsd: 0, toppedUpNanoUsd: 0 };

/** @throws ApiError `invalid_value` for a month that has not begun, or has too many lines. */
export async function makeStatement(
  tenant: Pick<Tenant, 'statementPart' | 'keys'>,
  asked: {
    readonly tenantId: string;
    readonly month: string;
    readonly timeZone: string;
    readonly nowMs: number;
  },
): Promise<Statement> {
  const { tenantId, month, timeZone, nowMs } = asked;
  const { fromMs, endMs } = rangeOf(month, timeZone);
  if (fromMs > nowMs) {
    const message = `The month ${month} has not begun in ${timeZone}.`;
    throw new ApiError('invalid_value', message, { param: 'month' });
  }
  const toMs = Math.min(endMs, nowMs + 1);
  const sums = await readParts(tenant, { fromMs, toMs });
  const labels = new Map((await tenant.keys()).map(({ keyId, label }) => [keyId, label]));
  const spend = [...sums.spend.values()]
    .map((row) => ({ ...row, keyLabel: labels.get(row.keyId) ?? '' }))
    .toSorted((a, b) => (a.model + a.keyId < b.model + b.keyId ? -1 : 1));
  const { opening, credits, corrections, openHolds } = sums;
  return {
    tenant: tenantId,
    month,
    timeZone,
    fromMs,
    toMs,
    isComplete: endMs <= nowMs,
    opening,
    credits,
    spend,
    corrections,
    closing: [...credits, ...spend, ...corrections].reduce<BalanceChange>(plus, opening),
    openHolds,
  };
}

export function plus(a: BalanceChange, b: BalanceChange): BalanceChange {
  const sum = {
    grantedNanoUsd: a.grantedNanoUsd + b.grantedNanoUsd,
    toppedUpNanoUsd: a.toppedUpNanoUsd + b.toppedUpNanoUsd,
  };
  assert(Object.values(sum).every(Number.isSafeInteger), 'a sum is a safe integer of nano-USD');
  return sum;
}

/** Granted and topped-up together. */
export function totalOf({ grantedNanoUsd, toppedUpNanoUsd }: BalanceChange): number {
  return grantedNanoUsd + toppedUpNanoUsd;
}

function rangeOf(text: string, timeZone: string): { fromMs: number; endMs: number } {
  const [year = 0, month = 0] = text.split('-').map(Number);
  const { startOfMonth } = calendarOf(timeZone);
  return {
    fromMs: startOfMonth({ year, month }),
    endMs: startOfMonth({ year, month: month + 1 }),
  };
}

async function readParts(
  tenant: Pick<Tenant, 'statementPart'>,
  range: { readonly fromMs: number; readonly toMs: number },
) {
  let opening = nothing;
  const credits: StatementCredit[] = [];
  const corrections: StatementCorrection[] = [];
  const spend = new Map<string, StatementSpend>();
  const openHolds = { count: 0, amountNanoUsd: 0 };
  let untilId: number | null = null;
  for (let afterId: number | null = 0; afterId !== null;) {
    const part: StatementPart = await tenant.statementPart({ ...range, afterId, untilId });
    opening = plus(opening, part.before);
    credits.push(...part.credits);
    corrections.push(...part.corrections);
    for (const row of part.spend) addSpend(spend, row);
    openHolds.count += part.openHolds.count;
    openHolds.amountNanoUsd += part.openHolds.amountNanoUsd;
    if (credits.length + corrections.length > statementLinesMax) {
      const message = `The statement has more than ${statementLinesMax} credits and corrections.`;
      throw new ApiError('invalid_value', message, { param: 'month' });
    }
    untilId = part.untilId;
    afterId = part.lastId;
  }
  return { opening, credits, corrections, spend, openHolds };
}

function addSpend(spend: Map<string, StatementSpend>, row: StatementSpend): void {
  const name = JSON.stringify([row.model, row.keyId]);
  const known = spend.get(name);
  if (known === undefined) {
    spend.set(name, row);
    return;
  }
  spend.set(name, {
    ...row,
    ...plus(known, row),
    requests: known.requests + row.requests,
    inputUncached: known.inputUncached + row.inputUncached,
    inputCached: known.inputCached + row.inputCached,
    outputText: known.outputText + row.outputText,
    outputReasoning: known.outputReasoning + row.outputReasoning,
    savedNanoUsd: known.savedNanoUsd + row.savedNanoUsd,
  });
}
