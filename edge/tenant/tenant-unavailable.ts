/**
 * A tenant whose database cannot be used now. Its clients learn that they are to come back, its
 * operator which tenant it is and what to do; neither sees where the server keeps its files.
 */
import type { DatabaseUnavailable, UnavailableReason } from '../../db/unavailable.ts';
import { ApiError, unavailableAnswers } from '../errors.ts';

export class TenantUnavailable extends ApiError {
  readonly tenant: string;
  readonly reason: UnavailableReason;
  /** The advice is for the operator alone. */
  readonly advice: string;

  constructor(tenant: string, found: DatabaseUnavailable) {
    const { code, message, retryAfterSeconds } = unavailableAnswers[found.reason];
    super(code, message, {
      headers: { 'retry-after': String(retryAfterSeconds) },
      cause: found,
    });
    this.name = 'TenantUnavailable';
    this.tenant = tenant;
    this.reason = found.reason;
    this.advice = `The database of the tenant ${tenant} ${advice[found.reason]}.`;
  }

  /**
   * true when the fault passes by itself and the call that met it did nothing: it may be made
   * again.
   */
  get passes(): boolean {
    return this.reason === 'locked' || this.reason === 'full';
  }
}

const putBack = 'stop the edge, put back the file from a backup, and start it again';

const advice: Record<UnavailableReason, string> = {
  locked: 'is locked by another process; end that process, or wait for it',
  full: 'cannot grow, because its disk is full; make space, and it goes on by itself',
  failing:
    'may lack its last records, which its disk failed to keep; see to the disk, and it goes on',
  missing: `is missing; ${putBack}`,
  damaged: `is damaged or cannot be read; ${putBack}`,
  foreign: `holds the records of another tenant; ${putBack}`,
};
