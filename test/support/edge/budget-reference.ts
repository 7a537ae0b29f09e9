/**
 * Budgets and growing holds again, as plainly as they can be said: BigInt, no database. It shares
 * no code with edge/ledger, and tests compare the two after every step.
 */

export interface ReferenceLimit {
  /** null: it binds every request. */
  readonly name: string | null;
  readonly lengthMs: number;
  readonly limit: bigint;
}

interface Window {
  readonly limit: ReferenceLimit;
  held: bigint;
  spent: bigint;
}

interface Hold {
  amount: bigint;
  readonly windows: readonly Window[];
}

export class ReferenceBudgets {
  balance: bigint;
  readonly open = new Map<string, Hold>();
  readonly #limits: readonly ReferenceLimit[];
  readonly #windows = new Map<string, Window>();

  constructor(balance: bigint, limits: readonly ReferenceLimit[]) {
    this.balance = balance;
    this.#limits = limits;
  }

  held(): bigint {
    return [...this.open.values()].reduce((sum, { amount }) => sum + amount, 0n);
  }

  available(): bigint {
    return this.balance - this.held();
  }

  /** Finds the window of a limit at a time, with what counts in it. */
  windowAt(limit: ReferenceLimit, nowMs: number): Window {
    const key = `${this.#limits.indexOf(limit)} ${Math.floor(nowMs / limit.lengthMs)}`;
    const known = this.#windows.get(key) ?? { limit, held: 0n, spent: 0n };
    this.#windows.set(key, known);
    return known;
  }

  /** Admits a request that holds the first amount, and may cost the second; or says who refuses. */
  admit(
    id: string,
    asked: {
      readonly first: bigint;
      readonly most: bigint;
      readonly names: readonly string[];
      readonly nowMs: number;
    },
  ): 'admitted' | 'budget' | 'no-balance' {
    const windows = this.#limits
      .filter(({ name }) => name === null || asked.names.includes(name))
      .map((limit) => this.windowAt(limit, asked.nowMs));
    if (windows.some((window) => left(window) < asked.most)) return 'budget';
    if (this.available() < asked.first) return 'no-balance';
    for (const window of windows) window.held += asked.first;
    this.open.set(id, { amount: asked.first, windows });
    return 'admitted';
  }

  /** @returns the amount of the hold now; null where less than the least was left. */
  extend(id: string, wanted: bigint, leastWanted: bigint): bigint | null {
    const hold = this.open.get(id);
    if (hold === undefined) return null;
    const given = [wanted, this.available(), ...hold.windows.map(left)].reduce(least);
    if (given <= 0n || given < leastWanted) return null;
    hold.amount += given;
    for (const window of hold.windows) window.held += given;
    return hold.amount;
  }

  /** Bills at most the hold; null voids. */
  settle(id: string, cost: bigint | null): bigint | null {
    const hold = this.open.get(id);
    if (hold === undefined) return null;
    const billed = least(cost ?? 0n, hold.amount);
    this.open.delete(id);
    this.balance -= billed;
    for (const window of hold.windows) {
      window.held -= hold.amount;
      window.spent += billed;
    }
    return billed;
  }
}

function left({ limit, held, spent }: Window): bigint {
  const rest = limit.limit - held - spent;
  return rest > 0n ? rest : 0n;
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
