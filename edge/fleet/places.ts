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

export interface Places extends Workers {
  /** Places a request that waits for no turn: any worker that is ready will do. */
  placeNow(input: PlaceInput): PlaceResult;
}

export function createPlaces(options: {
  readonly workers: ReadonlyMap<string, WorkerEntry>;
  readonly clock: { nowMs(): number };
  readonly staticWorkers: () => readonly StaticWorker[];
}): Places {
  const { workers, clock, staticWorkers } = options;

  const serving = (model: string): WorkerEntry[] =>
    [...workers.values()].filter((entry) => entry.announcement.models.includes(model));

  const readyFor = (input: PlaceInput): WorkerEntry[] => {
    const nowMs = clock.nowMs();
    return serving(input.model).filter(
      (entry) =>
        stateAt(entry, nowMs) === 'ready' && !input.exclude.includes(entry.announcement.id),
    );
  };

  /** A worker that failed is passed over for a while, unless nobody else is there. */
  const rested = (ready: WorkerEntry[]): WorkerEntry[] => {
    const others = ready.filter((entry) => entry.backoffUntilMs <= clock.nowMs());
    return others.length > 0 ? others : ready;
  };

  const withRoom = (input: TurnInput, inCredit: boolean): WorkerEntry[] => {
    const { tenant, slots } = input.turn;
    const all = serving(input.model);
    const isOwed = inCredit && all.every((entry) => entry.flights.slotsOf(tenant) === 0);
    const ready = rested(readyFor(input));
    const able = ready.filter(({ announcement }) => slots <= (announcement.waiting ?? Infinity));
    // A worker that can never hold this many answers refuses them itself.
    if (able.length === 0) return ready;
    return able.filter(
      (entry) => entry.fullUntilMs <= clock.nowMs() && hasRoom(entry, { slots, isOwed }),
    );
  };

  const noneFor = (input: PlaceInput): PlaceResult | null => {
    if (readyFor(input).length > 0) return null;
    const reason = whyNone(serving(input.model), input, clock.nowMs());
    const waitMs = reason === 'all-refused' ? backoffMs : heartbeatMs;
    return { kind: 'no-worker', reason, retryAfterSeconds: Math.ceil(waitMs / 1_000) };
  };

  const placeOn = (among: readonly WorkerEntry[], input: PlaceInput, cost: number): PlaceResult => {
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
    flights.place(requestId, { model, promptTokens: uncached, tenant, slots, cost }, clock.nowMs());
    return {
      kind: 'placed',
      worker: announcement.id,
      url: announcement.url,
      epoch: cacheEpochOf(announcement),
      contextLength:
        announcement.served?.find(({ id }) => id === input.model)?.contextLength ?? null,
      reportsCachedTokens: announcement.noDiscountReason === null,
      hasJournal: announcement.hasJournal,
      ownToken: staticWorkers().find(({ id }) => id === announcement.id)?.ownToken ?? null,
    };
  };

  return {
    noneFor,
    placeNow: (input) => noneFor(input) ?? placeOn(rested(readyFor(input)), input, 0),
    hasRoom: (input, inCredit) => withRoom(input, inCredit).length > 0,
    place: (input, { cost, inCredit }) => placeOn(withRoom(input, inCredit), input, cost),
    serviceOf: (model) => serviceOf(serving(model), clock.nowMs()),
    costOf(input) {
      const all = serving(input.model);
      const cached = Math.max(0, ...all.map((entry) => cachedTokens(entry, input)));
      const usual = all.find(({ rate }) => rate.outputTokens !== null)?.rate.outputTokens;
      const output = (usual ?? outputTokensDefault) * input.turn.slots;
      return Math.ceil(input.promptTokens - cached + Math.min(input.outputTokensMax, output));
    },
  };
}

function serviceOf(serving: readonly WorkerEntry[], nowMs: number): Service {
  const ready = serving.filter((entry) => stateAt(entry, nowMs) === 'ready');
  const known = ready.filter(({ rate }) => rate.tokensPerMs !== null);
  let slots = 0;
  for (const entry of ready) slots += slotsOf(entry);
  let knownSlots = 0;
  let tokensPerMs = 0;
  let slotsPerMs = 0;
  for (const entry of known) {
    knownSlots += slotsOf(entry);
    tokensPerMs += slotsOf(entry) * (entry.rate.tokensPerMs ?? 0);
    slotsPerMs += slotsOf(entry) / (entry.rate.answerMs ?? Infinity);
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
