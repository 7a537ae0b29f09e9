/**
 * Picks which waiting request of a model goes next: deficit round robin over tenants. A tenant
 * earns a quantum of tokens times its weight each round and pays what its requests cost when they
 * start, so over time tenants that always have something waiting get tokens in proportion to their
 * weights, whatever the size and number of their requests. A tenant that comes new goes first,
 * once.
 */
import { strict as assert } from 'node:assert';
import type { Priority } from '../tenant/key-contract.ts';
import { KeyLanes } from './key-lanes.ts';
import type { OfKey } from './key-lanes.ts';

/** Tokens that a tenant of weight 1 earns a round; small, so that turns change often. */
export const quantumTokens = 512;
/** Tenants without anything waiting whose credit is still remembered. */
const idleFlowsMax = 10_000;

/**
 * While requests of all priorities wait, a tenant's tokens are shared among them in this
 * proportion: even low priority is served after bounded time.
 */
export const priorityShares: Readonly<Record<Priority, number>> = { high: 16, normal: 4, low: 1 };
const priorities: readonly Priority[] = ['high', 'normal', 'low'];

export interface Queued extends OfKey {
  readonly tenant: string;
  readonly weight: number;
  readonly priority: Priority;
  /** The cost of the request in tokens, from 1. */
  readonly cost: number;
  /** It had its turn and lost its worker: it goes before what its tenant has waiting. */
  readonly goesFirst: boolean;
}

interface Class<Item extends Queued> {
  readonly keys: KeyLanes<Item>;
  /** Tokens served over its share: the class that has least goes next. */
  served: number;
}

/** A tenant's waiting requests, and the tokens that it may use before others have their turn. */
interface Flow<Item extends Queued> {
  readonly tenant: string;
  weight: number;
  credit: number;
  waiting: number;
  waitingTokens: number;
  readonly first: Item[];
  readonly classes: Readonly<Record<Priority, Class<Item>>>;
}

export class FairQueue<Item extends Queued> {
  /** Tenants that have not used up their first quantum; they go before the others. */
  readonly #fresh = new Map<string, Flow<Item>>();
  /** The other tenants, in the order of the round. */
  readonly #round = new Map<string, Flow<Item>>();
  #size = 0;
  #tokens = 0;

  get size(): number {
    return this.#size;
  }

  /** The cost of all that wait. */
  get tokens(): number {
    return this.#tokens;
  }

  waitingOf(tenant: string): { readonly requests: number; readonly tokens: number } {
    const flow = this.#flowOf(tenant);
    return { requests: flow?.waiting ?? 0, tokens: flow?.waitingTokens ?? 0 };
  }

  /** The part of the service that a tenant gets while all who wait now, and it, go on waiting. */
  shareOf({ tenant, weight }: Pick<Queued, 'tenant' | 'weight'>): number {
    let weights = weight;
    for (const flow of this.#flows()) {
      if (flow.waiting > 0 && flow.tenant !== tenant) weights += flow.weight;
    }
    return weight / weights;
  }

  /**
   * Lists each key's requests in the order in which they were added; tenants and their keys come in
   * no order.
   */
  items(): Item[] {
    return [...this.#flows()].flatMap(({ first, classes }) => [
      ...first,
      ...priorities.flatMap((priority) => classes[priority].keys.items()),
    ]);
  }

  push(item: Item): void {
    assert(item.cost >= 1 && item.weight > 0, 'a request costs something and a tenant has a share');
    const flow = this.#flowOf(item.tenant) ?? this.#open(item);
    flow.weight = item.weight;
    if (item.goesFirst) flow.first.push(item);
    else join(flow, item);
    this.#count(flow, item, 1);
  }

  /** Returns false if the item does not wait here. */
  remove(item: Item): boolean {
    const flow = this.#flowOf(item.tenant);
    if (flow === undefined) return false;
    const { keys } = flow.classes[item.priority];
    if (!removeFrom(flow.first, item) && !keys.remove(item)) return false;
    this.#count(flow, item, -1);
    return true;
  }

  /**
   * Takes out the request whose turn it is, of those that fit; null if none does. `inCredit` is
   * whether its tenant has used less than its share lately.
   */
  next(fits: (item: Item, inCredit: boolean) => boolean): Item | null {
    const ready = this.#find((flow, head) => flow.credit > 0 && fits(head, true));
    if (ready !== null) return this.#take(ready);
    // Rounds go by until one of the requests that fit has earned its turn.
    let rounds = Infinity;
    for (const flow of this.#flows()) {
      const head = flow.credit > 0 ? null : headOf(flow);
      if (head === null || !fits(head, false)) continue;
      rounds = Math.min(rounds, Math.ceil((1 - flow.credit) / quantumOf(flow)));
    }
    if (rounds === Infinity) return null;
    this.#earn(rounds);
    const earned = this.#find((flow, head) => flow.credit > 0 && fits(head, false));
    assert(earned !== null, 'the rounds have given somebody a turn');
    return this.#take(earned);
  }

  /**
   * Gives back tokens of an answer that cost less than it was charged; below 0, takes more of them.
   */
  correct(tenant: string, tokens: number): void {
    const flow = this.#flowOf(tenant);
    if (flow !== undefined) flow.credit = Math.min(quantumOf(flow), flow.credit + tokens);
  }

  *#flows(): Generator<Flow<Item>, void> {
    yield* this.#fresh.values();
    yield* this.#round.values();
  }

  #flowOf(tenant: string): Flow<Item> | undefined {
    return this.#fresh.get(tenant) ?? this.#round.get(tenant);
  }

  #open({ tenant, weight }: Item): Flow<Item> {
    const newClass = (): Class<Item> => ({ keys: new KeyLanes(), served: 0 });
    const classes = { high: newClass(), normal: newClass(), low: newClass() };
    const flow = { tenant, weight, credit: 0, waiting: 0, waitingTokens: 0, first: [], classes };
    flow.credit = quantumOf(flow);
    this.#fresh.set(tenant, flow);
    return flow;
  }

  #find(suits: (flow: Flow<Item>, head: Item) => boolean): Flow<Item> | null {
    for (const flow of this.#flows()) {
      const head = headOf(flow);
      if (head !== null && suits(flow, head)) return flow;
    }
    return null;
  }

  #take(flow: Flow<Item>): Item {
    const item = headOf(flow);
    assert(item !== null, 'a tenant whose turn it is has something waiting');
    if (!removeFrom(flow.first, item)) {
      const lane = flow.classes[item.priority];
      lane.keys.serve(item);
      lane.served += item.cost / priorityShares[item.priority];
    }
    flow.credit -= item.cost;
    if (flow.credit <= 0) {
      this.#fresh.delete(flow.tenant);
      this.#round.delete(flow.tenant);
      this.#round.set(flow.tenant, flow);
    }
    this.#count(flow, item, -1);
    return item;
  }

  /**
   * Credit that is not used does not grow beyond a round's; a tenant without waiting requests is
   * forgotten.
   */
  #earn(rounds: number): void {
    for (const flow of this.#flows()) {
      const quantum = quantumOf(flow);
      flow.credit = Math.min(quantum, flow.credit + rounds * quantum);
      if (flow.waiting === 0 && flow.credit === quantum) this.#forget(flow);
    }
  }

  #count(flow: Flow<Item>, item: Item, change: 1 | -1): void {
    flow.waiting += change;
    flow.waitingTokens += change * item.cost;
    this.#size += change;
    this.#tokens += change * item.cost;
    if (this.#size === 0) {
      // Nobody waits, so nobody has had a turn in another's place.
      this.#fresh.clear();
      this.#round.clear();
    } else if (flow.waiting === 0 && this.#fresh.size + this.#round.size > idleFlowsMax) {
      this.#forget(flow);
    }
  }

  #forget(flow: Flow<Item>): void {
    this.#fresh.delete(flow.tenant);
    this.#round.delete(flow.tenant);
  }
}

function quantumOf({ weight }: { readonly weight: number }): number {
  return quantumTokens * weight;
}

/** A class that comes back after a pause is not owed the tokens that were served meanwhile. */
function join<Item extends Queued>(flow: Flow<Item>, item: Item): void {
  const lane = flow.classes[item.priority];
  if (lane.keys.size === 0) {
    const busy = priorities.map((each) => flow.classes[each]).filter((each) => each.keys.size > 0);
    if (busy.length > 0) lane.served = Math.max(lane.served, minServed(busy));
  }
  lane.keys.push(item);
}

function headOf<Item extends Queued>(flow: Flow<Item>): Item | null {
  const [first] = flow.first;
  if (first !== undefined) return first;
  let next: Class<Item> | null = null;
  for (const priority of priorities) {
    const lane = flow.classes[priority];
    if (lane.keys.size > 0 && (next === null || lane.served < next.served)) next = lane;
  }
  return next?.keys.head() ?? null;
}

function minServed(lanes: readonly { readonly served: number }[]): number {
  return Math.min(...lanes.map(({ served }) => served));
}

function removeFrom<Item>(list: Item[], item: Item): boolean {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
  return index >= 0;
}
