/** Reads the budgets that a request names in its headers. */
import { ApiError } from '../errors.ts';

export const budgetHeader = 'x-sift-budget';
export const budgetModeHeader = 'x-sift-budget-mode';

/** Budgets that one request may name. */
export const budgetsPerRequestMax = 8;

export const budgetNamePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$/;
export const budgetNameText =
  'up to 64 characters of A-Z, a-z, 0-9, ., _, : and -, and begins with a letter or a digit';

export interface NamedBudgets {
  readonly names: readonly string[];
  /** The answer may be shortened to what is left. */
  readonly trims: boolean;
}

/** @throws ApiError 422 for names that no budget can have, or an unknown mode. */
export function readBudgets(headers: Headers): NamedBudgets {
  const stated = headers.get(budgetHeader);
  const names = stated === null ? [] : [...new Set(stated.split(',').map((name) => name.trim()))];
  const wrong = names.find((name) => !budgetNamePattern.test(name));
  if (wrong !== undefined) {
    throw invalid(budgetHeader, `A budget's name has ${budgetNameText}.`);
  }
  if (names.length > budgetsPerRequestMax) {
    throw invalid(budgetHeader, `A request names at most ${budgetsPerRequestMax} budgets.`);
  }
  const mode = headers.get(budgetModeHeader) ?? 'refuse';
  if (mode !== 'refuse' && mode !== 'trim') {
    throw invalid(budgetModeHeader, `${budgetModeHeader} is 'refuse' or 'trim'.`);
  }
  return { names, trims: mode === 'trim' };
}

function invalid(param: string, message: string): ApiError {
  return new ApiError('invalid_value', message, { param });
}
