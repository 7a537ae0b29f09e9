/**
 * Waiting requests of one tenant and priority, shared among the keys that they came with: the key
 * that has had least for its weight goes next, so that keys that always have something waiting get
 * tokens in proportion to their weights. Requests of one key keep their order.
 */

/** Keys without anything waiting that are still remembered. */
const idleLanesMax = 1_000;

export interface OfKey {
  /** Absent where there is no telling the keys apart. */
  readonly key?: string;
  /** The default is 1. */
  readonly keyWeight?: number;
  readonly cost: number;
}

interface Lane<Item> {
  readonly items: Item[];
  /** Tokens served over the key's weight. */
  served: number;
}

export class KeyLanes<Item extends OfKey> {
  readonly #lanes = new Map<string, Lane<Item>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Lists what waits: the requests of each key in their order. */
  items(): Item[] {
    return [...this.#lanes.values()].flatMap(({ items }) => items);
  }

  push(item: Item): void {
    const lane = this.#lanes.get(keyOf(item)) ?? { items: [], served: 0 };
    this.#lanes.set(keyOf(item), lane);
    // A key that comes back after a pause is not owed the tokens that were served meanwhile.
    if (lane.items.length === 0) lane.served = Math.max(lane.served, this.#leastServed());
    lane.items.push(item);
    this.#size++;
  }

  head(): Item | null {
    let next: Lane<Item> | null = null;
    for (const lane of this.#lanes.values()) {
      if (lane.items.length > 0 && (next === null || lane.served < next.served)) next = lane;
    }
    return next?.items[0] ?? null;
  }

  /** Takes out a request that goes to a worker. */
  serve(item: Item): void {
    const lane = this.#lanes.get(keyOf(item));
    if (lane === undefined) return;
    lane.served += item.cost / (item.keyWeight ?? 1);
    this.remove(item);
  }

  /** Returns false if the request does not wait here. */
  remove(item: Item): boolean {
    const items = this.#lanes.get(keyOf(item))?.items ?? [];
    const index = items.indexOf(item);
    if (index < 0) return false;
    items.splice(index, 1);
    this.#size--;
    // Nobody waits, so no key has had a turn in another's place.
    if (this.#size === 0) this.#lanes.clear();
    else if (items.length === 0 && this.#lanes.size > idleLanesMax) this.#lanes.delete(keyOf(item));
    return true;
  }

  #leastServed(): number {
    const busy = [...this.#lanes.values()].filter(({ items }) => items.length > 0);
    return busy.length === 0 ? 0 : Math.min(...busy.map(({ served }) => served));
  }
}

function keyOf({ key = '' }: OfKey): string {
  return key;
}
