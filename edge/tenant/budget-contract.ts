/** Budgets: what a key, or whoever names one in a request, may spend in windows of time. */

/** Weeks begin on Monday. */
export type Period = 'day' | 'week' | 'month' | 'ever';

/** The terms that are set of a budget. */
export interface BudgetTerms {
  /** The IANA time zone in which days, weeks and months begin. */
  readonly zone: string;
  /** From one window on, and at most one of each period; all of them bind at once. */
  readonly windows: readonly { readonly period: Period; readonly limitNanoUsd: number }[];
}

/** A budget as it is now. */
export interface BudgetRecord {
  readonly zone: string;
  readonly createdAtMs: number;
  readonly windows: readonly BudgetWindow[];
}

export interface NamedBudget extends BudgetRecord {
  readonly name: string;
}

export interface BudgetWindow {
  readonly period: Period;
  readonly limitNanoUsd: number;
  readonly spentNanoUsd: number;
  /** The holds of requests that are running. */
  readonly heldNanoUsd: number;
  readonly startMs: number;
  /** null: never. */
  readonly resetsAtMs: number | null;
}

export type BudgetSet =
  | { readonly kind: 'created' | 'changed'; readonly budget: NamedBudget }
  | { readonly kind: 'too-many'; readonly budgetsMax: number };
