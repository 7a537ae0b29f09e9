/** Says how long a request may wait for a worker, and what its place in the queue goes by. */
import { ApiError } from '../errors.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { Turn } from '../fleet/placement-contract.ts';
import type { Priority } from '../tenant/key-contract.ts';
import type { PreparedRequest } from './prepared-request.ts';

const waitHeader = 'x-sift-max-wait-ms';
const waitMsMax = 600_000;

/**
 * The longest wait that the client states, `x-sift-max-wait-ms: 5000` or RFC 7240's `prefer:
 * wait=5`; null if it states none. @throws ApiError 422 for what is no time; a preference that is
 * none is no preference.
 */
export function readWaitMs(headers: Headers): number | null {
  const stated = headers.get(waitHeader);
  if (stated !== null) {
    if (/^\d{1,9}$/.test(stated)) return Math.min(waitMsMax, Number(stated));
    throw new ApiError('invalid_value', `${waitHeader} is a number of milliseconds.`, {
      param: waitHeader,
    });
  }
  const [, seconds] =
    /(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})"?\s*(?:$|[,;])/i.exec(headers.get('prefer') ?? '') ?? [];
  return seconds === undefined ? null : Math.min(waitMsMax, Number(seconds) * 1_000);
}

export function turnOf(
  { request }: PreparedRequest,
  of: {
    readonly record: TenantRecord;
    readonly priority: Priority;
    readonly key?: string;
    readonly keyWeight?: number;
    readonly waitMsMax: number;
  },
): Turn {
  return {
    tenant: of.record.id,
    weight: of.record.weight,
    priority: of.priority,
    ...(of.key !== undefined && { key: of.key }),
    ...(of.keyWeight !== undefined && { keyWeight: of.keyWeight }),
    slots: request.prompts * request.answersEach,
    waitMsMax: of.waitMsMax,
    busyWorker: null,
  };
}
