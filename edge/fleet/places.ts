/** Picks the worker for a request now, and tells if any has a slot for it and how soon one will. */
import { strict as assert } from 'node:assert';
import type { PlaceInput, PlaceResult } from './placement-contract.ts';
import type { StaticWorker } from './worker-contract.ts';
import { chooseWorker } from './placement.ts';
import { cacheEpochOf } from './starts.ts';
import type { Service, TurnInput, Workers } from './waiting-requests.ts';
import { backoffMs, hasRoom, heartbeatMs, slotsOf, stateAt } from './worker-entry.ts';
import type { WorkerEntry } from './worker-entry.ts';

/** The output of an answer, until the first answers have shown what is usual. */
const outputTokensDefault = 256;

export class Places implements Workers {
  readonly #workers: ReadonlyMap<string, WorkerEntry>;
  readonly #clock: { nowMs(): number };
  readonly #staticWorkers: () => readonly StaticWorker[];

  constructor(options: {
    readonly workers: ReadonlyMap<string, WorkerEntry>;
    readonly clock: { nowMs(): number };
    readonly staticWorkers: () => readonly StaticWorker[];
  }) {
    this.#workers = options.workers;
    this.#clock = options.clock;
    this.#staticWorkers = options.staticWorkers;
  }

  /** Places a request that waits for no turn: any worker that is ready will do. */
  placeNow(input: PlaceInput): PlaceResult {
    return this.noneFor(input) ?? this.#placeOn(this.#rested(this.#readyFor(input)), input, 0);
  }

  place(
    input: TurnInput,
    { cost, inCredit }: { readonly cost: number; readonly inCredit: boolean },
  ): PlaceResult {
    return this.#placeOn(this.#withRoom(input, inCredit), input, cost);
  }

  hasRoom(input: TurnInput, inCredit: boolean): boolean {
    return this.#withRoom(input, inCredit).length > 0;
  }

  noneFor(input: PlaceInput): PlaceResult | null {
    if (this.#readyFor(input).length > 0) return null;
    const reason = whyNone(this.#serving(input.model), input, this.#clock.nowMs());
    const waitMs = reason === 'all-refused' ? backoffMs : heartbeatMs;
    return { kind: 'no-worker', reason, retryAfterSeconds: Math.ceil(waitMs / 1_000) };
  }

  serviceOf(model: string): Service {
    return serviceOf(this.#serving(model), this.#clock.nowMs());
  }

  costOf(input: TurnInput): number {
    const all = this.#serving(input.model);
    const cached = Math.max(0, ...all.map((entry) => cachedTokens(entry, input)));
    const usual = all.find(({ rate }) => rate.outputTokens !== null)?.rate.outputTokens;
    const output = (usual ?? outputTokensDefault) * input.turn.slots;
    return Math.ceil(input.promptTokens - cached + Math.min(input.outputTokensMax, output));
  }

  #serving(model: string): WorkerEntry[] {
    return [...this.#workers.values()].filter((entry) => entry.announcement.models.includes(model));
  }

  #readyFor(input: PlaceInput): WorkerEntry[] {
    const nowMs = this.#clock.nowMs();
    return this.#serving(input.model).filter(
      (entry) =>
        stateAt(entry, nowMs) === 'ready' && !input.exclude.includes(entry.announcement.id),
    );
  }

  /** A worker that failed is passed over for a while, unless nobody else is there. */
  #rested(ready: WorkerEntry[]): WorkerEntry[] {
    const others = ready.filter((entry) => entry.backoffUntilMs <= this.#clock.nowMs());
    return others.length > 0 ? others : ready;
  }

  #withRoom(input: TurnInput, inCredit: boolean): WorkerEntry[] {
    const { tenant, slots } = input.turn;
    const all = this.#serving(input.model);
    const isOwed = inCredit && all.every((entry) => entry.flights.slotsOf(tenant) === 0);
    const ready = this.#rested(this.#readyFor(input));
    const able = ready.filter(({ announcement }) => slots <= (announcement.waiting ?? Infinity));
    // A worker that can never hold this many answers refuses them itself.
    if (able.length === 0) return ready;
    return able.filter(
      (entry) => entry.fullUntilMs <= this.#clock.nowMs() && hasRoom(entry, { slots, isOwed }),
    );
  }

  #placeOn(among: readonly WorkerEntry[], input: PlaceInput, cost: number): PlaceResult {
    const { promptTokens, requestId, turn, model } = input;
    const candidates = among.map((entry) => ({
      entry,
      worker: entry.announcement.id,
      tokensInFlight: entry.flights.tokens,
      cachedTokens: cachedTokens(entry, input),
      tokensPerSecond: entry.tokensPerSecond,
    }));
    const tieKey = input.prefixKey ?? requestId;
    const chosen = chooseWorker(candidates, { promptTokens, tieKey });
    assert(chosen !== null, 'one of some workers is the best');
    const { announcement, flights } = chosen.entry;
    const uncached = Math.max(0, promptTokens - chosen.cachedTokens);
    const { tenant = null, slots = 0 } = turn ?? {};
    const taken = { model, promptTokens: uncached, tenant, slots, cost };
    flights.place(requestId, taken, this.#clock.nowMs());
    const served = announcement.served?.find(({ id }) => id === model);
    const configured = this.#staticWorkers().find(({ id }) => id === announcement.id);
    return {
      kind: 'placed',
      worker: announcement.id,
      url: announcement.url,
      epoch: cacheEpochOf(announcement),
      contextLength: served?.contextLength ?? null,
      reportsCachedTokens: announcement.noDiscountReason === null,
      hasJournal: announcement.hasJournal,
      ownToken: configured?.ownToken ?? null,
    };
  }
}

function serviceOf(serving: readonly WorkerEntry[], nowMs: number): Service {
  const ready = serving.filter((entry) => stateAt(entry, nowMs) === 'ready');
  let slots = 0;
  for (const entry of ready) slots += slotsOf(entry);
  let knownSlots = 0;
  let tokensPerMs = 0;
  let slotsPerMs = 0;
  for (const entry of ready) {
    const { tokensPerMs: rate, answerMs } = entry.rate;
    if (rate === null || answerMs === null) continue;
    knownSlots += slotsOf(entry);
    tokensPerMs += slotsOf(entry) * rate;
    slotsPerMs += slotsOf(entry) / answerMs;
  }
  if (tokensPerMs === 0) return { slots, tokensPerMs: null, nextSlotMs: 0 };
  // Workers that have not answered yet are taken to be as fast as the others.
  const scale = slots / knownSlots;
  return { slots, tokensPerMs: tokensPerMs * scale, nextSlotMs: 1 / (slotsPerMs * scale) };
}

function whyNone(serving: readonly WorkerEntry[], input: PlaceInput, nowMs: number) {
  if (serving.some((entry) => input.exclude.includes(entry.announcement.id))) return 'all-refused';
  return serving.some((entry) => stateAt(entry, nowMs) !== 'lost') ? 'none-ready' : 'none-serves';
}

/** Tokens cached by an earlier start of the worker are gone. */
function cachedTokens(entry: WorkerEntry, input: PlaceInput): number {
  const hit = input.prefixHits.find((each) => each.worker === entry.announcement.id);
  return hit?.epoch === cacheEpochOf(entry.announcement)
    ? Math.min(hit.tokens, input.promptTokens)
    : 0;
}
