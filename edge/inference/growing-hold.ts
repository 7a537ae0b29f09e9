/**
 * The hold of an admitted request while its answer is made. It covers a first lease of the output,
 * and grows by longer ones ahead of need, so that a long answer waits for none of them. Where
 * balance or budgets give no more, the answer ends at what its hold covers.
 */
import type { StopCode } from '../engines/chunk.ts';
import { ApiError } from '../errors.ts';
import { describe } from '../middleware/answer-error.ts';
import { costNanoUsd, holdNanoUsd } from '../money.ts';
import type { Price, Usage } from '../money.ts';
import type { Services } from '../services.ts';
import type { AdmitResult } from '../tenant/admission-contract.ts';
import type { Extension } from '../tenant/settlement-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { refusalError } from './refusal.ts';

/** Output tokens of each answer that are held at first, unless the operator sets another count. */
export const leaseTokensDefault = 4_096;

interface HeldRequest {
  readonly tenant: Tenant;
  readonly requestId: string;
  readonly price: Price;
  /** Output tokens that are held at first, of all its answers. */
  readonly leaseTokens: number;
  readonly admission: Pick<
    Extract<AdmitResult, { kind: 'admitted' }>,
    'holdNanoUsd' | 'holdNanoUsdMax'
  >;
}

export class GrowingHold {
  readonly #services: Pick<Services, 'keepAlive' | 'log'>;
  readonly #request: HeldRequest;
  #amountNanoUsd: number;
  /** The next lease is twice as long as the last. */
  #leaseNanoUsd: number;
  #extending: Promise<unknown> | null = null;
  #stoppedBy: StopCode | null = null;

  constructor(services: Pick<Services, 'keepAlive' | 'log'>, request: HeldRequest) {
    const { leaseTokens, price, admission } = request;
    this.#services = services;
    this.#request = request;
    this.#amountNanoUsd = admission.holdNanoUsd;
    const first = { promptTokensMax: 0, outputTokensMax: leaseTokens };
    this.#leaseNanoUsd = holdNanoUsd(first, price);
  }

  get amountNanoUsd(): number {
    return this.#amountNanoUsd;
  }

  /** It covers all that the request can cost. */
  get isWhole(): boolean {
    return this.#amountNanoUsd >= this.#request.admission.holdNanoUsdMax;
  }

  /** The lack of money that ended the answer; null: there was none. */
  get stoppedBy(): StopCode | null {
    return this.#stoppedBy;
  }

  /** true if the hold covers an amount now. A whole one covers what a worker may count. */
  has(amountNanoUsd: number): boolean {
    return this.isWhole || amountNanoUsd <= this.#amountNanoUsd;
  }

  /**
   * Tells if the hold covers what was computed, or can be made to: false ends the answer. It is
   * made to grow once half of its last lease is used.
   */
  covers(usage: Usage): boolean | Promise<boolean> {
    if (this.isWhole) return true;
    const cost = costNanoUsd(usage, this.#request.price);
    if (cost > this.#amountNanoUsd) return this.#growTo(cost);
    const isAhead = this.#amountNanoUsd - cost >= this.#leaseNanoUsd / 2;
    if (!isAhead && this.#extending === null) this.#extendAhead();
    return true;
  }

  /** Holds all that the request can cost. @throws ApiError 402 where that is not covered. */
  async holdWhole(): Promise<void> {
    if (this.isWhole) return;
    const missing = this.#request.admission.holdNanoUsdMax - this.#amountNanoUsd;
    const extension = await this.#extend({ amountNanoUsd: missing, leastNanoUsd: missing });
    if (extension.kind === 'extended') return;
    if (extension.kind === 'over') {
      throw new ApiError('internal_error', 'The request was settled before its answer was made.');
    }
    const { lacks } = extension;
    const neededNanoUsd = this.#request.admission.holdNanoUsdMax;
    const held = this.#amountNanoUsd;
    throw refusalError(
      lacks.kind === 'budget'
        ? { ...lacks, neededNanoUsd, leftNanoUsd: lacks.leftNanoUsd + held }
        : { ...lacks, neededNanoUsd, availableNanoUsd: lacks.availableNanoUsd + held },
    );
  }

  async #growTo(cost: number): Promise<boolean> {
    await this.#extending;
    if (this.has(cost)) return true;
    const extension = await this.#extend(this.#nextLease(cost - this.#amountNanoUsd));
    if (this.has(cost)) return true;
    if (extension.kind === 'exhausted') {
      const isBudget = extension.lacks.kind === 'budget';
      this.#stoppedBy = isBudget ? 'budget_exhausted' : 'insufficient_balance';
    } else {
      // Its client has left, or it was taken for lost: money is not the reason.
      this.#services.log('warn', 'hold-settled', { requestId: this.#request.requestId });
    }
    return false;
  }

  #extendAhead(): void {
    const extending = this.#extend(this.#nextLease(1)).catch((error: unknown) => {
      // It is asked for again when it is needed.
      const { requestId } = this.#request;
      this.#services.log('warn', 'hold-not-extended', { requestId, reason: describe(error) });
      return null;
    });
    this.#extending = extending;
    this.#services.keepAlive(extending);
    // One that gave nothing is not repeated before its end: the answer may need no more.
    void extending.then((extension) => {
      if (extension === null || extension.kind === 'extended') this.#extending = null;
    });
  }

  #nextLease(leastNanoUsd: number) {
    const missing = this.#request.admission.holdNanoUsdMax - this.#amountNanoUsd;
    this.#leaseNanoUsd *= 2;
    const wanted = Math.max(this.#leaseNanoUsd, leastNanoUsd);
    return { amountNanoUsd: Math.min(wanted, missing), leastNanoUsd };
  }

  async #extend(by: {
    readonly amountNanoUsd: number;
    readonly leastNanoUsd: number;
  }): Promise<Extension> {
    const { tenant, requestId } = this.#request;
    const extension = await tenant.extend({ requestId, ...by });
    if (extension.kind === 'extended') this.#amountNanoUsd = extension.holdNanoUsd;
    return extension;
  }
}
