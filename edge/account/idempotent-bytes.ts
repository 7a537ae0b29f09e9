/**
 * Bytes for the ids and secrets of what a request creates. Under an Idempotency-Key they are the
 * same for the same caller and key, so that a repeated request creates nothing new and shows the
 * same secret again, of which nothing is stored for that.
 */
import { createHmac } from 'node:crypto';
import { z } from 'zod';
import { parseRequest } from '../middleware/parse-request.ts';
import type { AccountInput } from './account-endpoint.ts';

export const idempotencyHeaders = z.object({
  'idempotency-key': z
    .string()
    .min(1)
    .max(255)
    .optional()
    .describe('The same request again gets the same answer and creates nothing.'),
});

type Caller = Pick<AccountInput<never, never, never>, 'services' | 'c' | 'tenantId' | 'actor'>;

/** @param purpose tells apart what one caller creates under one key. */
export function idempotentBytes(
  { services, c, tenantId, actor }: Caller,
  purpose: string,
): { bytes(count: number): Uint8Array } {
  const sent = c.req.header('idempotency-key');
  if (sent === undefined) return services.random;
  const { 'idempotency-key': key } = parseRequest(idempotencyHeaders, { 'idempotency-key': sent });
  const [secret = ''] = services.settings.keySigningSecrets;
  const caller = actor.kind === 'key' ? actor.key.keyId : null;
  let calls = 0;
  return {
    bytes(count) {
      const name = JSON.stringify(['created', purpose, tenantId, caller, key, calls++]);
      return createHmac('sha512', secret).update(name).digest().subarray(0, count);
    },
  };
}
