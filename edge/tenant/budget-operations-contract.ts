/** The calls about budgets that requests name. */
import type { BudgetSet, BudgetTerms, NamedBudget } from './budget-contract.ts';
import type { Actor } from './key-contract.ts';

/** The operations on a tenant's named budgets; without an actor it is the operator's. */
export interface TenantBudgets {
  /** In the order of their names. */
  budgets(): Promise<NamedBudget[]>;
  budget(name: string): Promise<NamedBudget | null>;
  /** Makes a budget, or changes its terms: what was spent stays spent. */
  setBudget(name: string, terms: BudgetTerms, actor?: Actor): Promise<BudgetSet>;
  /** false if there was none. Requests that run go on; a new budget of the name begins anew. */
  removeBudget(name: string, actor?: Actor): Promise<boolean>;
}
