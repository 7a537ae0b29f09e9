/** A key as the operator's API and the tenant's own routes write it. */
import { z } from 'zod';
import { keyModelsMax, keyWeightMax } from '../admit/keys.ts';
import { budgetTermsSchema, budgetSchema, termsOf, wireBudget } from '../http/budget-wire.ts';
import type { KeyRecord, KeyTerms } from '../tenant/key-contract.ts';
import { limitsSchema, unixMs, wireLimits } from './wire.ts';

export const scopeSchema = z.enum(['inference', 'read', 'admin']);

export const prioritySchema = z
  .enum(['low', 'normal', 'high'])
  .describe("among the tenant's own keys, when its requests wait");

const weight = z
  .int()
  .min(1)
  .max(keyWeightMax)
  .describe("its share beside the tenant's other keys of its priority, when their requests wait");
const expiresAtMs = unixMs
  .nullable()
  .describe('Unix milliseconds: the key is refused from then on; null: never');
const models = z
  .array(z.string().min(1).max(256))
  .min(1)
  .max(keyModelsMax)
  .nullable()
  .describe('ids of the models that the key may run, by whatever name it asks; null: all');

/** Fields that are set of a key when it is created and later; null lifts it. */
export const keyTermsFields = {
  priority: prioritySchema.optional(),
  weight: weight.optional(),
  expires_at_ms: expiresAtMs.optional(),
  models: models.optional(),
  budget: budgetTermsSchema.nullable().optional(),
};

export const keySchema = z.object({
  key_id: z.string(),
  label: z.string(),
  status: z.enum(['active', 'revoked']),
  scopes: z.array(scopeSchema),
  priority: prioritySchema,
  weight,
  limits: limitsSchema,
  expires_at_ms: expiresAtMs,
  models,
  budget: budgetSchema.nullable().describe('null: the key may spend what the tenant has'),
  created_at_ms: unixMs,
  last_used_at_ms: unixMs.nullable(),
});

const keyTermsSchema = z.object(keyTermsFields);

export function keyTermsOf(wire: z.infer<typeof keyTermsSchema>): KeyTerms {
  const { priority, weight: share, expires_at_ms: expires, models: allowed, budget } = wire;
  return {
    ...(priority !== undefined && { priority }),
    ...(share !== undefined && { weight: share }),
    ...(expires !== undefined && { expiresAtMs: expires }),
    ...(allowed !== undefined && { models: allowed }),
    ...(budget !== undefined && { budget: budget && termsOf(budget) }),
  };
}

export function wireKey(record: KeyRecord): z.infer<typeof keySchema> {
  return {
    key_id: record.keyId,
    label: record.label,
    status: record.status,
    scopes: [...record.scopes],
    priority: record.priority,
    weight: record.weight,
    limits: wireLimits(record.limits),
    expires_at_ms: record.expiresAtMs,
    models: record.models && [...record.models],
    budget: record.budget && wireBudget(record.budget),
    created_at_ms: record.createdAtMs,
    last_used_at_ms: record.lastUsedAtMs,
  };
}
