/** The rule that a key gives others no scope, limit, model, time or budget beyond its own. */
import type { BudgetRecord, BudgetTerms } from '../tenant/budget-contract.ts';
import type { KeyLimits, KeyRecord, KeyTerms, Scope } from '../tenant/key-contract.ts';

/** The terms that are given; one that is absent is not changed. */
export type GivenTerms = Pick<KeyTerms, 'expiresAtMs' | 'models' | 'budget'> & {
  readonly scopes?: readonly Scope[];
  readonly limits?: KeyLimits;
};

export interface Beyond {
  /** The field of the request at fault. */
  readonly param: string;
  readonly reason: string;
}

const limitNames = {
  requestsPerMinute: 'limits.requests_per_minute',
  tokensPerMinute: 'limits.tokens_per_minute',
  concurrentRequests: 'limits.concurrent_requests',
} as const;

/** Returns null when the giver has all that it gives. */
export function beyondRights(giver: KeyRecord, given: GivenTerms): Beyond | null {
  const { scopes = [], limits, expiresAtMs, models, budget } = given;
  const scope = scopes.find((each) => !hasScope(giver.scopes, each));
  if (scope !== undefined) return beyond('scopes', `it has not the scope ${scope}`);
  if (limits !== undefined) {
    for (const name of ['requestsPerMinute', 'tokensPerMinute', 'concurrentRequests'] as const) {
      const own = giver.limits[name];
      const isWithin = own === null || (limits[name] !== null && limits[name] <= own);
      if (!isWithin) return beyond(limitNames[name], `its own limit is ${own}`);
    }
  }
  if (expiresAtMs !== undefined && giver.expiresAtMs !== null) {
    const isWithin = expiresAtMs !== null && expiresAtMs <= giver.expiresAtMs;
    if (!isWithin) return beyond('expires_at_ms', `it expires at ${giver.expiresAtMs} itself`);
  }
  if (models !== undefined && giver.models !== null) {
    const own = giver.models;
    const isWithin = models !== null && models.every((model) => own.includes(model));
    if (!isWithin) return beyond('models', `it may run ${own.join(', ')} alone`);
  }
  if (budget !== undefined && giver.budget !== null && !isWithinBudget(budget, giver.budget)) {
    return beyond('budget', 'it has a budget of its own, which has to be kept in each window');
  }
  return null;
}

/** The scope admin may read, too. */
export function hasScope(scopes: readonly string[], scope: Scope): boolean {
  return scopes.includes(scope) || (scope === 'read' && scopes.includes('admin'));
}

function beyond(param: string, reason: string): Beyond {
  return { param, reason };
}

function isWithinBudget(given: BudgetTerms | null, own: BudgetRecord): boolean {
  if (given === null || given.zone !== own.zone) return false;
  return own.windows.every(({ period, limitNanoUsd }) =>
    given.windows.some((each) => each.period === period && each.limitNanoUsd <= limitNanoUsd),
  );
}
