/**
 * The requests that wait for a worker: each has its turn by fair shares among tenants, goes as soon
 * as a worker has a slot for it, and is refused at once when its turn would come too late. The
 * fleet says where a slot is, and how fast it serves.
 */
import type { PlaceInput, PlaceResult, Turn } from './placement-contract.ts';
import { FairQueue } from './fair-queue.ts';
import type { Queued } from './fair-queue.ts';

/** Waiting requests of all models; each keeps its body in memory. */
export const waitingMax = 4_096;

export type TurnInput = PlaceInput & { readonly turn: Turn };

/** The service that the workers of a model give at present. */
export interface Service {
  /** Slots of the workers that take requests. */
  readonly slots: number;
  /** Tokens that all slots serve together in a millisecond; null: nothing has been served yet. */
  readonly tokensPerMs: number | null;
  /** Milliseconds until a slot will be free, were all taken. */
  readonly nextSlotMs: number;
}

export interface Workers {
  /** `inCredit`: its tenant has used less than its share lately. */
  hasRoom(input: TurnInput, inCredit: boolean): boolean;
  /** Places a request that `hasRoom` has found room for. */
  place(input: TurnInput, of: { readonly cost: number; readonly inCredit: boolean }): PlaceResult;
  /** Tells why no worker will ever take it as things are; null if one may. */
  noneFor(input: TurnInput): PlaceResult | null;
  serviceOf(model: string): Service;
  /** The cost of a turn in tokens: those to compute of its prompt, and its likely output. */
  costOf(input: TurnInput): number;
}

interface Waiting extends Queued {
  readonly input: TurnInput;
  readonly deadlineMs: number;
  resolve(result: PlaceResult): void;
}

export class WaitingRequests {
  readonly #workers: Workers;
  readonly #nowMs: () => number;
  readonly #onSize: (size: number) => void;
  readonly #queues = new Map<string, FairQueue<Waiting>>();
  readonly #byId = new Map<string, Waiting>();
  /** Slots of each model when its requests were last told how long they would wait. */
  readonly #slots = new Map<string, number>();

  constructor(
    workers: Workers,
    clock: { nowMs(): number },
    onSize: (size: number) => void = () => {},
  ) {
    this.#workers = workers;
    this.#onSize = onSize;
    this.#nowMs = () => clock.nowMs();
  }

  get size(): number {
    return this.#byId.size;
  }

  async add(input: TurnInput): Promise<PlaceResult> {
    const { model, requestId, turn } = input;
    const none = this.#workers.noneFor(input);
    if (none !== null) return none;
    this.#resolve(requestId, { kind: 'withdrawn' });
    const result = Promise.withResolvers<PlaceResult>();
    const waiting: Waiting = {
      tenant: turn.tenant,
      weight: turn.weight,
      priority: turn.priority,
      ...(turn.key !== undefined && { key: turn.key }),
      ...(turn.keyWeight !== undefined && { keyWeight: turn.keyWeight }),
      cost: Math.max(1, this.#workers.costOf(input)),
      goesFirst: turn.busyWorker !== null || input.exclude.length > 0,
      input,
      deadlineMs: this.#nowMs() + turn.waitMsMax,
      resolve: result.resolve,
    };
    const queue = this.#queues.get(model) ?? new FairQueue<Waiting>();
    this.#queues.set(model, queue);
    if (!this.#slots.has(model)) this.#slots.set(model, this.#workers.serviceOf(model).slots);
    queue.push(waiting);
    this.#byId.set(requestId, waiting);
    this.#onSize(this.size);
    this.#goOn(model, queue);
    if (this.#byId.get(requestId) === waiting) this.#refuseIfTooLate(waiting, queue);
    return await result.promise;
  }

  /** Refuses a request that came now, if it would be refused after waiting; null if not. */
  expectedRefusal({ model, turn }: Pick<TurnInput, 'model' | 'turn'>): Overloaded | null {
    const queue = this.#queues.get(model);
    // There may be a slot while nobody waits.
    if (queue === undefined) return null;
    const own = queue.waitingOf(turn.tenant);
    // A tenant without any waiting may be owed a slot.
    if (own.requests === 0) return null;
    const service = this.#workers.serviceOf(model);
    const waitMs = waitUntil({
      turn,
      queue,
      service,
      ownTokens: own.tokens,
      allTokens: queue.tokens,
    });
    if (waitMs > turn.waitMsMax) return overloaded('wait', waitMs);
    const isFull = own.requests + 1 > waitingMax - this.#byId.size - 1;
    return isFull ? overloaded('queue', waitMs) : null;
  }

  /** true if such a request would get a slot now, or is expected to within its wait. */
  couldTake(input: TurnInput): boolean {
    const { model, turn } = input;
    if (this.#workers.noneFor(input) !== null) return false;
    const queue = this.#queues.get(model);
    if (queue === undefined && this.#workers.hasRoom(input, false)) return true;
    const service = this.#workers.serviceOf(model);
    const waits = queue ?? new FairQueue<Waiting>();
    const ownTokens = waits.waitingOf(turn.tenant).tokens;
    const allTokens = waits.tokens;
    const waitMs = waitUntil({ turn, queue: waits, service, ownTokens, allTokens });
    return turn.waitMsMax > 0 && waitMs <= turn.waitMsMax;
  }

  withdraw(requestId: string): void {
    this.#resolve(requestId, { kind: 'withdrawn' });
  }

  /** Places those whose turn it is: a slot may have become free. */
  goOn(): void {
    for (const [model, queue] of this.#queues) this.#goOn(model, queue);
  }

  /**
   * Acts on what time alone changes: requests that have waited too long, and workers that are lost.
   */
  tick(): void {
    const nowMs = this.#nowMs();
    for (const waiting of this.#byId.values()) {
      const none = this.#workers.noneFor(waiting.input);
      if (none !== null) this.#resolve(waiting.input.requestId, none);
      else if (waiting.deadlineMs <= nowMs) this.#refuse(waiting, 'wait');
    }
    this.goOn();
    for (const [model, queue] of this.#queues) this.#refuseAfterLoss(model, queue);
  }

  /** Refuses all that wait. */
  refuseAll(): void {
    for (const waiting of this.#byId.values()) this.#refuse(waiting, 'closing');
  }

  /** An answer has ended; its tenant was charged `charged` tokens for it, and it was `computed`. */
  correct(of: { model: string; tenant: string; charged: number; computed: number }): void {
    this.#queues.get(of.model)?.correct(of.tenant, of.charged - of.computed);
  }

  #goOn(model: string, queue: FairQueue<Waiting>): void {
    let inCredit = false;
    const hasRoom = (waiting: Waiting, isInCredit: boolean): boolean => {
      inCredit = isInCredit;
      return this.#workers.hasRoom(waiting.input, isInCredit);
    };
    for (let next = queue.next(hasRoom); next !== null; next = queue.next(hasRoom)) {
      const { input, cost } = next;
      this.#byId.delete(input.requestId);
      this.#onSize(this.size);
      next.resolve(this.#workers.place(input, { cost, inCredit }));
    }
    if (queue.size === 0) this.#forget(model);
  }

  #refuseIfTooLate(waiting: Waiting, queue: FairQueue<Waiting>): void {
    const { turn, model } = waiting.input;
    const { requests, tokens } = queue.waitingOf(turn.tenant);
    const service = this.#workers.serviceOf(model);
    const ownTokens = tokens - waiting.cost;
    const allTokens = queue.tokens - waiting.cost;
    const waitMs = waitUntil({ turn, queue, service, ownTokens, allTokens });
    // A tenant may fill half of what is free, so that there is always room for another.
    const isFull = requests > waitingMax - this.#byId.size;
    if (waitMs > turn.waitMsMax) this.#refuse(waiting, 'wait', waitMs);
    else if (isFull) this.#refuse(waiting, 'queue', waitMs);
  }

  /** Refuses requests whose turn would come too late now that workers were lost or drained. */
  #refuseAfterLoss(model: string, queue: FairQueue<Waiting>): void {
    const service = this.#workers.serviceOf(model);
    const slotsBefore = this.#slots.get(model);
    this.#slots.set(model, service.slots);
    if (slotsBefore === undefined || service.slots >= slotsBefore) return;
    const nowMs = this.#nowMs();
    const tokens = new Map<string, number>();
    for (const waiting of queue.items()) {
      const ownTokens = tokens.get(waiting.tenant) ?? 0;
      const allTokens = queue.tokens - waiting.cost;
      const { turn } = waiting.input;
      const waitMs = waitUntil({ turn, queue, service, ownTokens, allTokens });
      if (nowMs + waitMs > waiting.deadlineMs) this.#refuse(waiting, 'wait', waitMs);
      else tokens.set(waiting.tenant, ownTokens + waiting.cost);
    }
  }

  #refuse(waiting: Waiting, reason: Overloaded['reason'], waitMs?: number): void {
    const { requestId, model } = waiting.input;
    const ms = waitMs ?? this.#workers.serviceOf(model).nextSlotMs;
    this.#resolve(requestId, overloaded(reason, ms));
  }

  /** Ends the wait of what still waits. */
  #resolve(requestId: string, result: PlaceResult): void {
    const waiting = this.#byId.get(requestId);
    if (waiting === undefined) return;
    this.#byId.delete(requestId);
    this.#onSize(this.size);
    const { model } = waiting.input;
    const queue = this.#queues.get(model);
    queue?.remove(waiting);
    if (queue?.size === 0) this.#forget(model);
    waiting.resolve(result);
  }

  #forget(model: string): void {
    this.#queues.delete(model);
    this.#slots.delete(model);
  }
}

type Overloaded = Extract<PlaceResult, { kind: 'overloaded' }>;

function overloaded(reason: Overloaded['reason'], waitMs: number): Overloaded {
  const retryAfterSeconds = Math.max(1, Math.ceil(waitMs / 1_000));
  return { kind: 'overloaded', reason, retryAfterSeconds };
}

function waitUntil(of: {
  readonly turn: Turn;
  readonly queue: FairQueue<Waiting>;
  readonly service: Service;
  /** Tokens that its tenant, and all tenants, have before it. */
  readonly ownTokens: number;
  readonly allTokens: number;
}): number {
  const { turn, queue, service, ownTokens, allTokens } = of;
  if (service.tokensPerMs === null) return 0;
  const before = Math.min(allTokens, ownTokens / queue.shareOf(turn));
  return before / service.tokensPerMs + service.nextSlotMs;
}
