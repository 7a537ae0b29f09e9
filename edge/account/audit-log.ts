/** The log of who changed what of an account. */
import { z } from 'zod';
import { auditActions } from '../tenant/audit-contract.ts';
import type { AuditRecord } from '../tenant/audit-contract.ts';
import { accountEndpoint } from './account-endpoint.ts';

const entrySchema = z.object({
  id: z.int(),
  at_ms: z.int().describe('Unix milliseconds'),
  actor: z
    .object({ type: z.enum(['key', 'operator']), key_id: z.string().nullable() })
    .describe('who made the change'),
  action: z.enum(auditActions),
  object: z.string().describe('the id of what was changed'),
  detail: z.looseObject({}).describe('what was asked for, without secrets'),
});
const example = {
  id: 17,
  at_ms: 1_796_083_200_000,
  actor: { type: 'key', key_id: 'Jx3fQ0aZ' },
  action: 'webhook.deleted',
  object: 'wh_pX2c8m1LkQ',
  detail: {},
};

export const auditEntries = accountEndpoint(
  {
    method: 'get',
    path: '/audit-log',
    summary: 'Log of changes to the account',
    description: 'Who made which key, webhook or order, and when; the newest first.',
    scope: 'admin',
    query: z.strictObject({
      before_id: z.coerce
        .number()
        .int()
        .min(1)
        .optional()
        .describe('the last one of the page before'),
      limit: z.coerce.number().int().min(1).max(500).default(100),
    }),
    answer: z
      .object({ entries: z.array(entrySchema) })
      .meta({ examples: [{ entries: [example] }] }),
  },
  async ({ tenant, query: { before_id: beforeId = null, limit } }) => ({
    entries: (await tenant.auditLog({ beforeId, limit })).map(wireEntry),
  }),
);

function wireEntry(record: AuditRecord): z.infer<typeof entrySchema> {
  const { id, atMs, actorKeyId, action, object, detail } = record;
  return {
    id,
    at_ms: atMs,
    actor: { type: actorKeyId === null ? 'operator' : 'key', key_id: actorKeyId },
    action,
    object,
    detail: { ...detail },
  };
}
