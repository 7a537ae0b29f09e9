/** Budgets by name, for a session, an agent or a customer: requests name them in a header. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import {
  budgetExample,
  budgetNameSchema,
  budgetTermsSchema,
  namedBudgetSchema,
  termsOf,
  wireNamedBudget,
} from '../http/budget-wire.ts';
import { noBudgetError } from '../inference/refusal.ts';
import { nearestName } from '../nearest.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { accountEndpoint } from './account-endpoint.ts';

const path = '/budgets/{name}';
const params = z.strictObject({ name: budgetNameSchema });
const how =
  'A request names budgets in `x-sift-budget: a, b` and counts in all of them, from its hold on; ' +
  'one that they do not cover is refused with 402 `budget_exhausted`, or shortened with ' +
  '`x-sift-budget-mode: trim`.';

const list = accountEndpoint(
  {
    method: 'get',
    path: '/budgets',
    summary: 'All budgets that requests may name',
    description: `In the order of their names. ${how}`,
    scope: 'read',
    answer: z
      .object({ object: z.literal('list'), data: z.array(namedBudgetSchema) })
      .meta({ examples: [{ object: 'list', data: [budgetExample] }] }),
  },
  async ({ tenant }) => ({
    object: 'list' as const,
    data: (await tenant.budgets()).map(wireNamedBudget),
  }),
);

const one = accountEndpoint(
  {
    method: 'get',
    path,
    summary: 'A budget, and what is left of it',
    description: how,
    scope: 'read',
    params,
    answer: namedBudgetSchema.meta({ examples: [budgetExample] }),
  },
  async ({ tenant, params: { name } }) => {
    const found = await tenant.budget(name);
    if (found === null) throw await noBudget(tenant, name);
    return wireNamedBudget(found);
  },
);

const put = accountEndpoint(
  {
    method: 'put',
    path,
    summary: 'Make a budget, or change its limits',
    description:
      `${how} Windows are those of the calendar in its zone. Limits that are changed act at the ` +
      'next request, and what was spent stays spent.',
    scope: 'admin',
    params,
    body: budgetTermsSchema.meta({
      examples: [{ windows: [{ window: 'day', limit_nano_usd: 5_000_000_000 }] }],
    }),
    answer: namedBudgetSchema.meta({ examples: [budgetExample] }),
  },
  async ({ tenant, actor, params: { name }, body }) => {
    const set = await tenant.setBudget(name, termsOf(body), actor);
    if (set.kind !== 'too-many') return wireNamedBudget(set.budget);
    throw new ApiError(
      'conflict',
      `An account has at most ${set.budgetsMax} budgets; delete one first.`,
    );
  },
);

const remove = accountEndpoint(
  {
    method: 'delete',
    path,
    summary: 'Delete a budget',
    description:
      'Requests that run go on. One of the same name that is made later begins with nothing spent.',
    scope: 'admin',
    params,
    answer: z
      .object({ object: z.literal('budget'), name: z.string(), deleted: z.literal(true) })
      .meta({ examples: [{ object: 'budget', name: 'agent-7', deleted: true }] }),
  },
  async ({ tenant, actor, params: { name } }) => {
    if (!(await tenant.removeBudget(name, actor))) throw await noBudget(tenant, name);
    return { object: 'budget' as const, name, deleted: true as const };
  },
);

export const budgets = [list, one, put, remove];

async function noBudget(tenant: Tenant, name: string): Promise<ApiError> {
  const names = (await tenant.budgets()).map((each) => each.name);
  return noBudgetError({ name, nearest: nearestName(name, names) }, 'name');
}
