/** Budgets of a tenant that its requests name. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import {
  budgetNameSchema,
  budgetTermsSchema,
  namedBudgetSchema,
  termsOf,
  wireNamedBudget,
} from '../http/budget-wire.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import { knownTenant, tenantIdSchema, tenantParams } from '../directory/known-tenant.ts';

const path = '/tenants/{tenant}/budgets';
const budgetParams = z.strictObject({ tenant: tenantIdSchema, name: budgetNameSchema });

export const budgetEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path,
      summary: 'The budgets that requests of the tenant may name',
      params: tenantParams,
      answer: z.object({ budgets: z.array(namedBudgetSchema) }),
    },
    async ({ services, params }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      return { budgets: (await tenant.budgets()).map(wireNamedBudget) };
    },
  ),
  jsonEndpoint(
    {
      method: 'put',
      path: `${path}/{name}`,
      summary: 'Make a budget or change its limits; what was spent stays spent',
      params: budgetParams,
      body: budgetTermsSchema,
      answer: namedBudgetSchema,
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const set = await tenant.setBudget(params.name, termsOf(body));
      if (set.kind === 'too-many') throw tooManyBudgets(set.budgetsMax);
      return wireNamedBudget(set.budget);
    },
  ),
  jsonEndpoint(
    {
      method: 'delete',
      path: `${path}/{name}`,
      summary: 'Remove a budget; requests that run go on',
      params: budgetParams,
      answer: z.object({ name: z.string(), deleted: z.literal(true) }),
    },
    async ({ services, params: { tenant: id, name } }) => {
      const { tenant } = await knownTenant(services, id);
      if (await tenant.removeBudget(name)) return { name, deleted: true as const };
      throw new ApiError('not_found', `The tenant ${id} has no budget ${name}.`);
    },
  ),
];

export function tooManyBudgets(budgetsMax: number): ApiError {
  return new ApiError('conflict', `A tenant has at most ${budgetsMax} budgets; delete one first.`);
}
