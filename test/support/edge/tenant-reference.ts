/**
 * The ledger again, as plainly as it can be said: BigInt, no database, no time. It shares no code
 * with edge/ledger, and tests compare the two after every step.
 */

interface Entry {
  readonly kind: 'credit' | 'pending' | 'posted' | 'voided' | 'correction';
  readonly granted: bigint;
  readonly toppedUp: bigint;
  /** Ids of the entries that correct this one. */
  readonly corrections: number[];
}

export class ReferenceLedger {
  granted = 0n;
  toppedUp = 0n;
  /** Ids count from 1, as the database's do. */
  readonly entries: Entry[] = [];
  readonly open = new Map<string, { amount: bigint }>();
  readonly settled = new Map<string, bigint>();
  readonly sources = new Set<string>();

  held(): bigint {
    return [...this.open.values()].reduce((sum, { amount }) => sum + amount, 0n);
  }

  available(): bigint {
    return this.granted + this.toppedUp - this.held();
  }

  credit(kind: 'granted' | 'topped-up', amount: bigint, source: string): boolean {
    if (this.sources.has(source)) return false;
    this.sources.add(source);
    if (kind === 'granted') this.#move('credit', amount, 0n);
    else this.#move('credit', 0n, amount);
    return true;
  }

  /** Admits a request for an amount that is available. */
  admit(id: string, amount: bigint): void {
    this.open.set(id, { amount });
    this.#move('pending', 0n, 0n);
  }

  /** The cost billed; null voids. The first settlement stands. */
  settle(id: string, cost: bigint | null): bigint {
    const hold = this.open.get(id);
    if (hold === undefined) return this.settled.get(id) ?? -1n;
    const billed = least(cost ?? 0n, hold.amount);
    this.open.delete(id);
    this.settled.set(id, billed);
    const granted = least(this.granted, billed);
    this.#move(cost === null ? 'voided' : 'posted', -granted, granted - billed);
    return billed;
  }

  /** False when the correction is refused. */
  correct(id: number, amount: bigint): boolean {
    const entry = this.entries[id - 1];
    if (entry === undefined || entry.kind === 'pending' || entry.kind === 'correction')
      return false;
    const chain = [entry, ...entry.corrections.map((other) => this.entries[other - 1] ?? entry)];
    const net = chain.reduce((sum, { granted, toppedUp }) => sum + granted + toppedUp, 0n);
    const netToppedUp = chain.reduce((sum, { toppedUp }) => sum + toppedUp, 0n);
    let granted: bigint;
    if (amount > 0n) {
      if (entry.kind !== 'credit' && net + amount > 0n) return false;
      if (entry.kind === 'credit') granted = entry.granted > 0n ? amount : 0n;
      else granted = amount - least(netToppedUp < 0n ? -netToppedUp : 0n, amount);
    } else {
      if (entry.kind === 'credit' && net + amount < 0n) return false;
      if (this.available() + amount < 0n) return false;
      const toppedUpFirst = entry.kind === 'credit' && entry.toppedUp > 0n;
      const first = toppedUpFirst ? this.toppedUp : this.granted;
      const fromFirst = least(first, -amount);
      granted = toppedUpFirst ? amount + fromFirst : -fromFirst;
    }
    this.#move('correction', granted, amount - granted);
    entry.corrections.push(this.entries.length);
    return true;
  }

  #move(kind: Entry['kind'], granted: bigint, toppedUp: bigint): void {
    this.granted += granted;
    this.toppedUp += toppedUp;
    this.entries.push({ kind, granted, toppedUp, corrections: [] });
  }
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
