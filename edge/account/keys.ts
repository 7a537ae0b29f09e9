/** The keys of an account. */
import { z } from 'zod';
import { refuseUnlisted } from '../admin/aliases.ts';
import { keySchema, keyTermsFields, keyTermsOf, scopeSchema, wireKey } from '../admin/key-wire.ts';
import { plainText } from '../admin/plain-text.ts';
import { limitsOf, limitsSchema } from '../admin/wire.ts';
import { createApiKey } from '../auth/api-key.ts';
import { ApiError } from '../errors.ts';
import { refusalError } from '../inference/refusal.ts';
import type { KeyDone, KeyRefusal } from '../tenant/key-change-contract.ts';
import type { KeyRecord, Scope } from '../tenant/key-contract.ts';
import { accountEndpoint } from './account-endpoint.ts';
import type { AccountEndpoint } from './account-endpoint.ts';
import { idempotencyHeaders, idempotentBytes } from './idempotent-bytes.ts';

const params = z.strictObject({ key: z.string().max(64) });
const label = plainText(200);
const unlimited = { requestsPerMinute: null, tokensPerMinute: null, concurrentRequests: null };
const rule = 'A key gives no scope, limit, model, expiry or budget beyond its own.';

const example = {
  key_id: 'Jx3fQ0aZ',
  label: 'production',
  status: 'active',
  scopes: ['inference', 'read'],
  priority: 'normal',
  weight: 1,
  limits: { requests_per_minute: 600, tokens_per_minute: null, concurrent_requests: null },
  expires_at_ms: null,
  models: null,
  budget: null,
  created_at_ms: 1_796_083_200_000,
  last_used_at_ms: null,
};
const shownSchema = keySchema.meta({ examples: [example] });

const list = accountEndpoint(
  {
    method: 'get',
    path: '/keys',
    summary: 'Keys of the account, without their secrets',
    description: 'Revoked ones are listed as well: entries name them.',
    scope: 'admin',
    answer: z.object({ keys: z.array(shownSchema) }).meta({ examples: [{ keys: [example] }] }),
  },
  async ({ tenant }) => ({ keys: (await tenant.keys()).map(wireKey) }),
);

const create = accountEndpoint(
  {
    method: 'post',
    path: '/keys',
    summary: 'Create a key; the answer alone holds it in full',
    description: rule,
    scope: 'admin',
    headers: idempotencyHeaders,
    body: z
      .strictObject({
        label: label.optional(),
        scopes: z.array(scopeSchema).min(1).max(3).optional(),
        ...keyTermsFields,
        limits: limitsSchema.optional(),
      })
      .meta({ examples: [{ label: 'production', scopes: ['inference', 'read'] }] }),
    answer: keySchema
      .extend({ key: z.string().describe('shown this once, stored nowhere') })
      .meta({ examples: [{ ...example, key: 'sk-sift-acme.Jx3fQ0aZ.…' }] }),
    status: 201,
  },
  async (input) => {
    const { services, tenantId, tenant, actor, body } = input;
    await refuseUnlisted(services, body.models ?? []);
    const { key, keyId, secretHash } = createApiKey({
      tenant: tenantId,
      signingSecrets: services.settings.keySigningSecrets,
      random: idempotentBytes(input, 'key'),
    });
    const terms = {
      label: body.label ?? '',
      scopes: [...new Set<Scope>(body.scopes ?? ['inference', 'read'])],
      ...keyTermsOf(body),
      limits: body.limits ? limitsOf(body.limits) : unlimited,
    };
    const made = await tenant.createKey({ keyId, secretHash, ...terms }, actor);
    return { ...wireKey(keyOf(made)), key };
  },
);

const one = accountEndpoint(
  {
    method: 'get',
    path: '/keys/{key}',
    summary: 'One key and its limits, without its secret',
    description: 'What it may do, and what is left of its budget.',
    scope: 'admin',
    params,
    answer: shownSchema,
  },
  async ({ tenantId, tenant, params: { key: id } }) => {
    const record = await tenant.key(id);
    if (record === null) throw noKey(tenantId, id);
    return wireKey(record);
  },
);

const change = accountEndpoint(
  {
    method: 'patch',
    path: '/keys/{key}',
    summary:
      'Revoke a key for good, or change what it may: its label, priority, weight, limits, ' +
      'expiry, models or budget; acts at the next request',
    description: `${rule} The last key of scope admin is ended by the operator alone.`,
    scope: 'admin',
    params,
    body: z
      .strictObject({
        status: z.literal('revoked').optional(),
        label: label.optional(),
        ...keyTermsFields,
        limits: limitsSchema.optional(),
      })
      .meta({ examples: [{ status: 'revoked' }] }),
    answer: shownSchema,
  },
  async ({ services, tenantId, tenant, actor, params: { key: id }, body }) => {
    await refuseUnlisted(services, body.models ?? []);
    const changes = {
      ...(body.status && { status: body.status }),
      ...(body.label !== undefined && { label: body.label }),
      ...keyTermsOf(body),
      ...(body.limits && { limits: limitsOf(body.limits) }),
    };
    const changed = await tenant.updateKey(id, changes, actor);
    if (changed === null) throw noKey(tenantId, id);
    return wireKey(keyOf(changed));
  },
);

export const keyEndpoints: readonly AccountEndpoint[] = [list, create, one, change];

function keyOf(result: KeyDone): KeyRecord {
  if (result.kind === 'refused') throw keyError(result.why);
  return result.key;
}

function keyError(why: KeyRefusal): ApiError {
  switch (why.kind) {
    case 'no-right':
      return refusalError(why.refusal);
    case 'beyond':
      return new ApiError(
        'insufficient_scope',
        `The key cannot give more than it has: ${why.reason}.`,
        { param: why.param },
      );
    case 'last-admin':
      return new ApiError(
        'conflict',
        'This is the last key of scope admin; make another one first, or ask the operator.',
      );
    case 'too-many':
      return new ApiError('conflict', `An account has at most ${why.keysMax} keys.`);
    case 'other-terms':
      return new ApiError(
        'idempotency_key_reused',
        'This Idempotency-Key was used for another key, or the key was changed since.',
      );
  }
}

function noKey(tenantId: string, id: string): ApiError {
  const message = `The tenant ${tenantId} has no key ${id}.`;
  return new ApiError('not_found', message, { param: 'key' });
}
