/**
 * The engine of a model whose groups have caches of their own and step together: a scheduler and a
 * prefix cache for each group. A request goes to the group that will have computed its prompt
 * first, by the rule by which the edge picks a worker.
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { at } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { ModelGroups } from '../model/model.ts';
import { EngineLoop } from './engine.ts';
import type { EngineLimits, EngineServices } from './engine.ts';
import type { EngineEvent, EngineLoad, EngineRequest } from './request.ts';

export interface GroupedServices extends Omit<EngineServices, 'model'> {
  readonly model: ModelGroups;
}

export class EngineGroups {
  readonly #model: ModelGroups;
  readonly #loops: readonly EngineLoop[];

  /** @param limits of each group */
  constructor({ model, ...services }: GroupedServices, limits: EngineLimits) {
    this.#model = model;
    this.#loops = model.groups.map(
      (group) => new EngineLoop({ ...services, model: group }, limits),
    );
  }

  get isIdle(): boolean {
    return this.#loops.every((loop) => loop.isIdle);
  }

  /** Queues the requests, each in its group, or refuses all of them with an `end` event each. */
  submit(...requests: readonly EngineRequest[]): EngineEvent[] {
    const ofGroup = this.#place(requests);
    for (const [group, loop] of this.#loops.entries()) {
      const error = loop.refusalOf(at(ofGroup, group));
      if (error !== null) return loop.refuse(requests, error);
    }
    return this.#loops.flatMap((loop, group) => loop.submit(...at(ofGroup, group)));
  }

  /** The requests of each group. One that is placed counts for those that come after it. */
  #place(requests: readonly EngineRequest[]): EngineRequest[][] {
    const ofGroup = this.#loops.map((): EngineRequest[] => []);
    const inFlight = this.#loops.map((loop) => loop.load().tokensInFlight);
    for (const request of requests) {
      const cached = this.#loops.map((loop) => loop.cachedTokens(request));
      const costs = inFlight.map((tokens, group) => tokens - at(cached, group));
      const least = Math.min(...costs);
      const equal = [...costs.keys()].filter((group) => costs[group] === least);
      const group = equal.length === 1 ? at(equal, 0) : firstByHash(equal, request);
      at(ofGroup, group).push(request);
      const { promptTokens, outputTokensMax, choices } = request;
      const ahead = promptTokens.length - at(cached, group) + choices * outputTokensMax;
      inFlight[group] = at(inFlight, group) + ahead;
    }
    return ofGroup;
  }

  abort(id: string): EngineEvent[] {
    return this.#loops.flatMap((loop) => loop.abort(id));
  }

  abortAll(): EngineEvent[] {
    return this.#loops.flatMap((loop) => loop.abortAll());
  }

  /** One step of all groups; those that have nothing to do take part for the others. */
  step(): EngineEvent[] {
    const batches = this.#loops.map((loop) => loop.plan());
    if (batches.every((batch) => batch === null)) return [];
    this.#model.forward(batches);
    return this.#loops.flatMap((loop, group) => (batches[group] === null ? [] : loop.finish()));
  }

  load(): EngineLoad {
    const [first, ...others] = this.#loops.map((loop) => loop.load());
    assert(first !== undefined, 'there is a group');
    return others.reduce(addLoads, first);
  }
}

/**
 * The group of the greatest hash with the prompt's first block: prompts that begin alike meet in
 * one group although nobody has their prefix yet.
 */
function firstByHash(groups: readonly number[], request: EngineRequest): number {
  const { cacheSalt, promptTokens } = request;
  const start = promptTokens.slice(0, blockTokens).join();
  const hash = (group: number): string =>
    createHash('sha256').update(`${group}\0${cacheSalt}\0${start}`).digest('hex');
  const hashed = groups.map((group) => ({ group, hash: hash(group) }));
  return hashed.reduce((a, b) => (b.hash > a.hash ? b : a)).group;
}

function addLoads(a: EngineLoad, b: EngineLoad): EngineLoad {
  const counters = a.counters;
  const other = b.counters;
  return {
    runningSequences: a.runningSequences + b.runningSequences,
    waitingSequences: a.waitingSequences + b.waitingSequences,
    tokensInFlight: a.tokensInFlight + b.tokensInFlight,
    blocksTotal: a.blocksTotal + b.blocksTotal,
    blocksFree: a.blocksFree + b.blocksFree,
    blocksCached: a.blocksCached + b.blocksCached,
    counters: {
      steps: counters.steps + other.steps,
      promptTokens: counters.promptTokens + other.promptTokens,
      cachedTokens: counters.cachedTokens + other.cachedTokens,
      outputTokens: counters.outputTokens + other.outputTokens,
      draftTokens: counters.draftTokens + other.draftTokens,
      acceptedDrafts: counters.acceptedDrafts + other.acceptedDrafts,
      preemptions: counters.preemptions + other.preemptions,
      evictedBlocks: counters.evictedBlocks + other.evictedBlocks,
      requestsFinished: counters.requestsFinished + other.requestsFinished,
      requestsAborted: counters.requestsAborted + other.requestsAborted,
      requestsRefused: counters.requestsRefused + other.requestsRefused,
    },
  };
}
