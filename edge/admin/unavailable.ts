/** Tenants whose database cannot be used: reports go on with the others, and list these. */
import { z } from 'zod';
import type { Services } from '../services.ts';
import { TenantUnavailable } from '../tenant/tenant-unavailable.ts';

export const unavailableSchema = z.object({
  tenant: z.string(),
  reason: z.enum(['locked', 'full', 'failing', 'missing', 'damaged', 'foreign', 'failed']),
  advice: z.string().describe('what to do'),
});

export type Unavailable = z.infer<typeof unavailableSchema>;

/** Describes one tenant's error for who asked about all of them; the log has its own words. */
export function unavailableOf(
  { log }: Pick<Services, 'log'>,
  tenant: string,
  error: unknown,
): Unavailable {
  const cause = error instanceof TenantUnavailable ? error.cause : error;
  const reason = cause instanceof Error ? cause.message : String(cause);
  log('warn', 'tenant-read-failed', { tenant, reason });
  if (error instanceof TenantUnavailable) {
    return { tenant, reason: error.reason, advice: error.advice };
  }
  const advice = `The database of the tenant ${tenant} cannot be read; the edge's log says why.`;
  return { tenant, reason: 'failed', advice };
}
