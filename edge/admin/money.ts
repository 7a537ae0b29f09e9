/** The operator's routes that change a tenant's balance: credits and corrections. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import { operatorSource } from '../ledger/credits.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { correctionExample, entryExample, newCorrectionExample } from './examples.ts';
import { plainText } from './plain-text.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { knownTenant, tenantParams } from '../directory/known-tenant.ts';
import { entrySchema, wireEntry } from './wire.ts';

const amountMax = Number.MAX_SAFE_INTEGER;
const note = plainText(500);
const entriesPageMax = 1_000;

export const moneyEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'post',
      path: '/tenants/{tenant}/credits',
      summary: 'Add credit; once per source, so that it can be repeated when its answer was lost',
      params: tenantParams,
      body: z
        .strictObject({
          kind: z.enum(['granted', 'topped-up']),
          amount_nano_usd: z.int().min(1).max(amountMax),
          source: plainText(200).min(1).describe('such as the number of an invoice'),
          note: note.optional(),
        })
        .meta({
          examples: [
            { kind: 'topped-up', amount_nano_usd: 25_000_000_000, source: 'invoice 2026-1' },
          ],
        }),
      answer: z
        .object({ credited: z.boolean().describe('false: the source was credited before') })
        .meta({ examples: [{ credited: true }] }),
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      return { credited: await credit(tenant, body) };
    },
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/tenants/{tenant}/corrections',
      summary: 'Correct an entry by a new one that names it; negative takes back',
      params: tenantParams,
      body: z
        .strictObject({
          entry_id: z.int().min(1),
          amount_nano_usd: z.int().refine((amount) => amount !== 0, 'expected an amount'),
          note: note.min(1),
        })
        .meta({ examples: [newCorrectionExample] }),
      answer: entrySchema.meta({ examples: [correctionExample] }),
      status: 201,
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const [entry] = await tenant.entries({ afterId: body.entry_id - 1, limit: 1 });
      if (entry?.id !== body.entry_id) {
        throw new ApiError('not_found', `There is no entry ${body.entry_id}.`);
      }
      return wireEntry(await correct(tenant, body));
    },
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants/{tenant}/entries',
      summary: "A page of the tenant's ledger, oldest first",
      params: tenantParams,
      query: z.strictObject({
        after_id: z.coerce.number().int().min(0).default(0),
        limit: z.coerce.number().int().min(1).max(entriesPageMax).default(100),
      }),
      answer: z
        .object({ entries: z.array(entrySchema) })
        .meta({ examples: [{ entries: [entryExample, correctionExample] }] }),
    },
    async ({ services, params, query }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const page = { afterId: query.after_id, limit: query.limit };
      return { entries: (await tenant.entries(page)).map(wireEntry) };
    },
  ),
];

async function credit(
  tenant: Tenant,
  body: {
    readonly kind: 'granted' | 'topped-up';
    readonly amount_nano_usd: number;
    readonly source: string;
    readonly note?: string | undefined;
  },
): Promise<boolean> {
  try {
    return await tenant.credit({
      kind: body.kind,
      amountNanoUsd: body.amount_nano_usd,
      source: operatorSource(body.source),
      note: body.note ?? '',
    });
  } catch (cause) {
    const { granted, toppedUp } = await tenant.balance();
    if (Number.isSafeInteger(granted + toppedUp + body.amount_nano_usd)) throw cause;
    throw new ApiError('conflict', 'No balance can pass 9,007,199 USD.', { cause });
  }
}

async function correct(
  tenant: Tenant,
  body: { readonly entry_id: number; readonly amount_nano_usd: number; readonly note: string },
) {
  try {
    return await tenant.correct({
      entryId: body.entry_id,
      amountNanoUsd: body.amount_nano_usd,
      note: body.note,
    });
  } catch (cause) {
    // The ledger's guards refused: the kind of the entry, what it moved, or the balance left.
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ApiError('conflict', `The entry cannot be corrected so: ${reason}.`, { cause });
  }
}
