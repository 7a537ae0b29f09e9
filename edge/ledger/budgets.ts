/**
 * Counts requests in budgets: in the windows of their keys' and of those that they name. Holds
 * count as they do in the balance, in the windows in which their requests were admitted, and come
 * back to these. Call everything inside a transaction.
 */
import { strict as assert } from 'node:assert';
import type { SyncDb } from '../../db/types.ts';
import { nearestName } from '../nearest.ts';
import type { Refusal } from '../tenant/admission-contract.ts';
import type { Period } from '../tenant/budget-contract.ts';
import { neverMs, windowAt } from './budget-windows.ts';
import { prepareBudgetStatements } from './budget-statements.ts';

/** Windows that are over are kept for this long, for the holds that were made in them. */
const keptMs = 40 * 24 * 60 * 60_000;

/** A window of a limit, as a request finds it. */
interface BoundWindow {
  /** null: a key's own. */
  readonly name: string | null;
  readonly period: Period;
  readonly limitId: number;
  /** null: nothing has counted in it yet. */
  readonly windowId: number | null;
  readonly startMs: number;
  readonly endMs: number;
  readonly leftNanoUsd: number;
}

type Tightest = Pick<BoundWindow, 'name' | 'period' | 'endMs' | 'leftNanoUsd'>;

/** The windows that bind a request. */
export interface BudgetLook {
  readonly names: readonly string[];
  readonly windows: readonly BoundWindow[];
  /** The one with the least left; null if nothing binds the request. */
  readonly tightest: Tightest | null;
}

/** The windows that a hold counts in, and the names that its request gave; null: none. */
export interface BudgetsOfHold {
  readonly names: readonly string[];
  readonly windowIds: readonly number[];
}

export const unbound: BudgetLook = { names: [], windows: [], tightest: null };

export class Budgets {
  readonly #statements: ReturnType<typeof prepareBudgetStatements>;

  constructor(db: SyncDb) {
    this.#statements = prepareBudgetStatements(db);
  }

  /**
   * Finds the windows as of now, and writes nothing.
   * @param of `keyId` is null of a key without a budget.
   */
  look(of: {
    readonly keyId: string | null;
    readonly names: readonly string[];
    readonly nowMs: number;
  }): BudgetLook | Extract<Refusal, { kind: 'no-budget' }> {
    const { keyId, names, nowMs } = of;
    const rows = [
      ...(keyId === null ? [] : this.#statements.limitsOfKey.all({ keyId, nowMs })),
      ...(names.length === 0
        ? []
        : this.#statements.limitsOfNames.all({ names: JSON.stringify(names), nowMs })),
    ];
    const unknown = names.find((name) => !rows.some((row) => row.name === name));
    if (unknown !== undefined) {
      return { kind: 'no-budget', name: unknown, nearest: this.#nearest(unknown) };
    }
    const windows = rows.map((row) => {
      const { name, period, limitId, windowId, limitNanoUsd, zone } = row;
      const { startMs, endMs } = row;
      const dates =
        startMs === null || endMs === null ? windowAt(period, zone, nowMs) : { startMs, endMs };
      const used = (row.heldNanoUsd ?? 0) + (row.spentNanoUsd ?? 0);
      return {
        name,
        period,
        limitId,
        windowId,
        ...dates,
        leftNanoUsd: Math.max(0, limitNanoUsd - used),
      };
    });
    return { names, windows, tightest: tightestOf(windows) };
  }

  /** Counts a hold in the windows; null if there are none. */
  reserve(
    { names, windows }: BudgetLook,
    hold: { amountNanoUsd: number; nowMs: number },
  ): BudgetsOfHold | null {
    if (windows.length === 0) return null;
    const windowIds = windows.map((window) => window.windowId ?? this.#open(window, hold.nowMs));
    this.#add(windowIds, hold.amountNanoUsd);
    return { names, windowIds };
  }

  /** Finds the tightest of a hold's windows; null if nothing binds it. */
  left(windowIds: readonly number[] | null): Tightest | null {
    if (windowIds === null) return null;
    const rows = this.#statements.windows.all({ windowIds: JSON.stringify(windowIds) });
    return tightestOf(
      rows.map(({ heldNanoUsd, spentNanoUsd, limitNanoUsd, ...row }) => ({
        ...row,
        leftNanoUsd: Math.max(0, limitNanoUsd - heldNanoUsd - spentNanoUsd),
      })),
    );
  }

  /** Counts more of a hold in its windows. */
  extend(windowIds: readonly number[] | null, amountNanoUsd: number): void {
    if (windowIds !== null) this.#add(windowIds, amountNanoUsd);
  }

  /** Counts the cost in place of the hold, in the windows that it was made in. */
  settle(
    windowIds: readonly number[] | null,
    amounts: { readonly heldNanoUsd: number; readonly costNanoUsd: number },
  ): void {
    if (windowIds === null) return;
    this.#statements.settle.run({ windowIds: JSON.stringify(windowIds), ...amounts });
  }

  #add(windowIds: readonly number[], amountNanoUsd: number): void {
    this.#statements.hold.run({ windowIds: JSON.stringify(windowIds), amountNanoUsd });
  }

  #open({ limitId, startMs, endMs }: BoundWindow, nowMs: number): number {
    this.#statements.forgetWindows.run({ limitId, endedMs: nowMs - keptMs });
    const opened = this.#statements.openWindow.get({ limitId, startMs, endMs });
    assert(opened !== undefined, 'an inserted window has an id');
    return opened.id;
  }

  #nearest(name: string): string | null {
    const names = this.#statements.names.all().flatMap((row) => row.name ?? []);
    return nearestName(name, names);
  }
}

/** The refusal of a request that the tightest window does not cover. */
export function exhausted(
  { name, period, endMs, leftNanoUsd }: Tightest,
  neededNanoUsd: number,
): Extract<Refusal, { kind: 'budget' }> {
  const resetsAtMs = endMs === neverMs ? null : endMs;
  return { kind: 'budget', name, period, leftNanoUsd, neededNanoUsd, resetsAtMs };
}

function tightestOf(windows: readonly Tightest[]): Tightest | null {
  const [first, ...others] = windows;
  if (first === undefined) return null;
  return others.reduce((a, b) => (b.leftNanoUsd < a.leftNanoUsd ? b : a), first);
}
