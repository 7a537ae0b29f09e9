/**
 * The end of an admitted request. However it ends, and however many ends reach for it at once (the
 * stream's, the client's leaving, a failure), the first one settles and the others wait for it: one
 * call to the tenant per request.
 */
import { billed, usedOrNull } from '../money.ts';
import type { ErrorCode } from '../errors.ts';
import type { NewStoredResponse } from '../dialects/answer-format.ts';
import type { CacheMissReason } from '../dialects/cache-miss-reason.ts';
import type { PlaceResult } from '../fleet/placement-contract.ts';
import type { PrefixKey, SeenPrompt, StoredAnswer } from '../tenant/admission-contract.ts';
import type { StopCode } from '../engines/chunk.ts';
import type { GrowingHold } from './growing-hold.ts';
import type { RequestRecord } from '../observe/request-record.ts';
import type { Services } from '../services.ts';
import type { SettleInput, Settlement } from '../tenant/settlement-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import type { Usage } from '../money.ts';
import { TenantUnavailable } from '../tenant/tenant-unavailable.ts';
import { stopAndCount } from '../relay/worker-journal.ts';
import { describe } from '../middleware/answer-error.ts';
import { explainMiss } from './cache-miss.ts';
import { chainOf } from './prepared-request.ts';
import type { PreparedRequest } from './prepared-request.ts';

export type Placed = Extract<PlaceResult, { kind: 'placed' }>;

/** The token that the edge shows to that worker. */
export function tokenFor(placed: Placed, services: Services): string | null {
  return placed.ownToken === null ? services.settings.workerToken : placed.ownToken.bearer;
}

const settleTriesMax = 3;
const settleRetryMs = 100;
/**
 * A database that is locked, or whose disk is full, is tried this often, a second apart. The client
 * waits for it; after that the hold waits for the journal.
 */
const settleTriesMaxUnavailable = 30;
const unavailableRetryMs = 1_000;

export interface RequestSettlement {
  /** Stops the worker. */
  readonly stop: AbortSignal;
  /** The count of what was handed to the client; null before the first event. */
  readonly usage: () => Usage | null;
  /** The request goes to this worker; null: the worker did not take it. */
  recordPlacement(worker: Placed | null): void;
  /** The worker counted this, and the events that it counted go to the client now. */
  recordUsage(usage: Usage): void;
  /** The worker has said that its journal has the last count on its disk. */
  recordJournalled(): void;
  /** The worker has ended, with this usage if it is known: the fleet is told once. */
  endFlight(usage: Usage | null): void;
  /** The cost of this usage; never more than the hold. */
  cost(usage: Usage): number;
  /** The reason why the worker's cache had no more of the prompt. */
  cacheMissReason(usage: Usage): CacheMissReason | null;
  /** The code with which money ran out and ended the answer; null: it did not. */
  readonly stoppedBy: () => StopCode | null;
  complete(end: {
    chain: readonly PrefixKey[];
    answer: StoredAnswer | null;
    /** The response that the tenant stores with its settlement. */
    response: NewStoredResponse | null;
  }): Promise<Settlement>;
  /** Bills what was delivered: a worker failed for good. */
  fail(end: {
    delivered: boolean;
    answer: StoredAnswer | null;
    /** The client is told this code. */
    code: ErrorCode;
  }): Promise<Settlement>;
  /**
   * Ends the request of a client that left: the worker is stopped, and what it has generated is
   * billed.
   */
  clientLeft(): Promise<Settlement>;
}

interface SettlementInput {
  readonly prepared: PreparedRequest;
  readonly tenant: Tenant;
  readonly hold: GrowingHold;
  readonly prefixHits: readonly { worker: string; epoch: number; bytes: number }[];
  readonly seenPrompt: SeenPrompt | null;
  readonly record: RequestRecord;
}

export function createRequestSettlement(
  services: Services,
  input: SettlementInput,
): RequestSettlement {
  return new OnceSettled(services, input);
}

type End = Pick<SettleInput, 'outcome' | 'usage' | 'confirmedChain' | 'answer' | 'response'>;

class OnceSettled implements RequestSettlement {
  readonly stop: AbortSignal;
  readonly #services: Services;
  readonly #input: SettlementInput;
  readonly #stop = new AbortController();
  #worker: Placed | null = null;
  #usage: Usage | null = null;
  #inJournal = false;
  #isInFlight = false;
  #settling: Promise<Settlement> | null = null;

  constructor(services: Services, input: SettlementInput) {
    this.#services = services;
    this.#input = input;
    this.stop = this.#stop.signal;
    const { record, prepared, hold } = input;
    record.note({ heldNanoUsd: hold.amountNanoUsd, model: prepared.model.id });
    record.admitted();
  }

  usage(): Usage | null {
    return this.#usage;
  }

  recordPlacement(worker: Placed | null): void {
    this.#worker = worker;
    if (worker !== null) this.#input.record.reach('placed');
    this.#isInFlight = worker !== null;
  }

  recordUsage(usage: Usage): void {
    this.#usage = usage;
  }

  endFlight(usage: Usage | null): void {
    if (this.#worker === null || !this.#isInFlight) return;
    this.#isInFlight = false;
    const { requestId } = this.#input.prepared;
    finishFlight(this.#services, { requestId, worker: this.#worker.worker, usage });
  }

  recordJournalled(): void {
    this.#inJournal = this.#worker?.hasJournal ?? false;
  }

  cost(usage: Usage): number {
    const { prepared, hold } = this.#input;
    return billed(usage, prepared.price, hold.amountNanoUsd).costNanoUsd;
  }

  stoppedBy(): StopCode | null {
    return this.#input.hold.stoppedBy;
  }

  cacheMissReason(usage: Usage): CacheMissReason | null {
    if (this.#worker === null) return null;
    const { worker } = this.#worker;
    return explainMiss(this.#input.prepared, this.#input, { ...usage, worker });
  }

  complete({
    chain,
    answer,
    response,
  }: Parameters<RequestSettlement['complete']>[0]): Promise<Settlement> {
    return this.#once(() => {
      const { record, hold } = this.#input;
      if (hold.stoppedBy !== null) record.note({ code: hold.stoppedBy });
      const end = { outcome: 'done', usage: this.#usage, confirmedChain: chain, answer } as const;
      return { ...end, ...(response && { response }) };
    });
  }

  fail({ delivered, answer, code }: Parameters<RequestSettlement['fail']>[0]): Promise<Settlement> {
    return this.#once(() => {
      this.#input.record.note({ code });
      this.#stop.abort();
      return {
        outcome: 'failed',
        usage: delivered ? this.#usage : null,
        confirmedChain: [],
        answer: delivered ? answer : null,
      };
    });
  }

  clientLeft(): Promise<Settlement> {
    const { prepared } = this.#input;
    return this.#once(async () => {
      this.#input.record.note({ code: 'client_left' });
      this.#stop.abort();
      const seen = { worker: this.#worker, seen: this.#usage };
      const computed = usedOrNull(await countOfLeft(this.#services, prepared, seen));
      // The worker holds the prompt once it has answered: it has computed all of it then.
      const isAnswered = computed !== null && computed.outputText + computed.outputReasoning > 0;
      return {
        outcome: 'aborted',
        usage: computed,
        confirmedChain: isAnswered ? chainOf(prepared) : [],
        answer: null,
      };
    });
  }

  #once(end: () => Promise<End> | End): Promise<Settlement> {
    if (this.#settling === null) {
      this.#input.prepared.body.release();
      this.#settling = this.#recorded(end);
      // Whoever asked for it sees its failure; the runtime waits for it even if nobody does.
      this.#services.keepAlive(this.#settling.catch(() => {}));
    }
    return this.#settling;
  }

  /** Tells the record of the end, whether or not the tenant could be told. */
  async #recorded(makeEnd: () => Promise<End> | End): Promise<Settlement> {
    const { record, hold } = this.#input;
    record.reach('ended');
    try {
      const end = await makeEnd();
      const settlement = await this.#settle(end);
      const { usage, costNanoUsd } = settlement;
      // The hold may have grown by a lease whose answer is still under way.
      const heldNanoUsd = Math.max(hold.amountNanoUsd, costNanoUsd);
      record.settled({ outcome: end.outcome, usage, costNanoUsd, heldNanoUsd });
      return settlement;
    } catch (error) {
      record.settled({ outcome: 'unsettled' });
      throw error;
    }
  }

  /** The prompt is remembered once its worker has answered: it has computed all of it then. */
  #promptOf({ usage }: End): Pick<SettleInput, 'promptMarks' | 'cacheMissReason'> {
    if (usage === null) return {};
    const reason = this.cacheMissReason(usage);
    const isAnswered = usage.outputText + usage.outputReasoning > 0;
    return {
      promptMarks: isAnswered ? (this.#input.prepared.trail?.marks ?? null) : null,
      cacheMissReason: reason && JSON.stringify(reason),
    };
  }

  async #settle(end: End): Promise<Settlement> {
    const { prepared, tenant, hold, record } = this.#input;
    const worker = this.#worker;
    const predictedCachedBytes = this.#predictedCachedBytes();
    record.note({ worker: worker?.worker ?? null, predictedCachedBytes });
    const settlement = await settleFirmly(this.#services, tenant, {
      requestId: prepared.requestId,
      worker: worker?.worker ?? null,
      epoch: worker?.epoch ?? null,
      predictedCachedBytes,
      ...this.#promptOf(end),
      ...end,
      isJournalled: this.#inJournal && isRepeatable(end),
    });
    const { requestId, model } = prepared;
    const isExpected = !hold.isWhole;
    reportExcess(this.#services, { requestId, model: model.id, settlement, isExpected });
    // A worker may have taken the request while it was settled.
    this.endFlight(null);
    return settlement;
  }

  /** A worker that reports no cached tokens may have had some; nobody ever knows. */
  #predictedCachedBytes(): number {
    const worker = this.#worker;
    if (!worker?.reportsCachedTokens) return 0;
    const isIts = (hit: { worker: string; epoch: number }): boolean =>
      hit.worker === worker.worker && hit.epoch === worker.epoch;
    return this.#input.prefixHits.find(isIts)?.bytes ?? 0;
  }
}

/** An answer or a response that is kept stands nowhere else. */
function isRepeatable({ outcome, usage, answer, response }: End): boolean {
  return outcome === 'done' && usage !== null && answer === null && !response;
}

/**
 * Counts what was computed for a client that left: by the journal, or else by the last count seen.
 * @throws if neither is known; the hold then stays open until the journal can be read.
 */
async function countOfLeft(
  services: Services,
  prepared: PreparedRequest,
  { worker, seen }: { worker: Placed | null; seen: Usage | null },
): Promise<Usage | null> {
  if (worker === null || !worker.hasJournal) return seen;
  const { requestId } = prepared;
  const answer = await stopAndCount({
    fetch: services.fetch,
    url: worker.url,
    token: services.settings.workerToken,
    requestId,
    reportsCachedTokens: worker.reportsCachedTokens,
  });
  if (answer.kind === 'counted') return answer.usage;
  if (answer.kind === 'never-seen') return seen;
  if (answer.kind === 'unreachable' && seen !== null) return seen;
  services.log('warn', 'settle-deferred', { requestId, worker: worker.worker });
  finishFlight(services, { requestId, worker: worker.worker });
  throw new Error('the worker does not say what it computed; its journal will be asked again');
}

/**
 * Settling is safe to repeat: the first settlement stands. If it fails for good, the hold stays
 * open and is settled from the worker's journal once it expires.
 */
async function settleFirmly(
  services: Services,
  tenant: Tenant,
  input: SettleInput,
): Promise<Settlement> {
  for (let tries = 1; ; tries++) {
    try {
      return await tenant.settle(input);
    } catch (error) {
      const { requestId } = input;
      services.log('warn', 'settle-failed', { requestId, tries, reason: describe(error) });
      const passes = error instanceof TenantUnavailable && error.passes;
      if (tries >= (passes ? settleTriesMaxUnavailable : settleTriesMax)) throw error;
      const waitMs = passes ? unavailableRetryMs : settleRetryMs * tries;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

/**
 * Logs usage beyond the hold: a bound that was none, or a worker that counts wrongly. Beyond a hold
 * that was to grow, a worker may compute some tokens before it is stopped. The entry states it too.
 */
function reportExcess(
  { log }: Pick<Services, 'log'>,
  {
    settlement,
    isExpected,
    ...request
  }: { requestId: string; model: string; settlement: Settlement; isExpected: boolean },
): void {
  const { first, excessNanoUsd, usage } = settlement;
  if (first && excessNanoUsd > 0) {
    log(isExpected ? 'info' : 'error', 'cost-exceeded-hold', { ...request, excessNanoUsd, usage });
  }
}

/**
 * Tells the fleet without waiting for it; a flight that nobody reports ended is forgotten later.
 */
export function finishFlight(
  services: Services,
  flight: { readonly requestId: string; readonly worker: string; readonly usage?: Usage | null },
): void {
  const { requestId, worker, usage = null } = flight;
  const computed = usage && {
    promptTokens: usage.inputUncached,
    outputTokens: usage.outputText + usage.outputReasoning,
  };
  services.keepAlive(
    services.fleet.finished(requestId, worker, computed).catch((error: unknown) => {
      services.log('warn', 'fleet-unreachable', { requestId, reason: describe(error) });
    }),
  );
}
