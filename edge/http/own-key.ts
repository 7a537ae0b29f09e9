/** GET /v1/key: the key that asks, with what it may and what it has spent. */
import { z } from 'zod';
import { strict as assert } from 'node:assert';
import { keySchema, wireKey } from '../admin/key-wire.ts';
import { limitsSchema, wireLimits } from '../admin/wire.ts';
import { budgetExample } from './budget-wire.ts';
import { keyEndpoint } from './key-endpoint.ts';

const { zone, windows, created_at_ms: createdAtMs } = budgetExample;

const accountLimitsSchema = limitsSchema.describe(
  'over all keys of the account; the tighter of the two holds; null means no limit of its own',
);

const example = {
  key_id: 'k_5f0c',
  label: 'agents',
  status: 'active',
  scopes: ['inference', 'read'],
  priority: 'normal',
  weight: 1,
  limits: { requests_per_minute: 600, tokens_per_minute: null, concurrent_requests: 8 },
  expires_at_ms: 1_798_761_600_000,
  models: ['sift-tiny'],
  budget: { zone, windows, created_at_ms: createdAtMs },
  created_at_ms: createdAtMs,
  last_used_at_ms: null,
  account_limits: { requests_per_minute: 6_000, tokens_per_minute: null, concurrent_requests: 64 },
};

export const ownKey = keyEndpoint(
  {
    method: 'get',
    path: '/v1/key',
    summary: 'The key itself',
    description:
      'Limits, models, expiry and budget of the key that asks, what is left, and the limits that ' +
      'the operator has set over all keys of the account. Needs the scope read, or admin.',
    scope: 'read',
    query: z.strictObject({}),
    answer: keySchema.extend({ account_limits: accountLimitsSchema }).meta({ examples: [example] }),
  },
  async ({ services, key }) => {
    const tenant = services.tenant(key.tenant);
    const [record, limits] = await Promise.all([tenant.key(key.keyId), tenant.limits()]);
    assert(record !== null, 'a key that is authorized exists');
    return { ...wireKey(record), account_limits: wireLimits(limits) };
  },
);
