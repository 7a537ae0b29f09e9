/**
 * The words in shared memory by which the leader tells ranks that a command is at their port, and
 * they tell it that an answer is at its own. Threads wait on them without a turn of an event loop.
 */
const lineWords = 16;
/** A wake-up that was missed costs at most so long. */
const recheckMs = 50;

/** The leader waits on this word: it counts answers, failures included. */
const answeredAt = 0;
/** 1 + the number of the rank that failed first; 0 while none has. */
const failedAt = 1;

const commandWord = (rank: number): number => (rank + 1) * lineWords;
const doneWord = (rank: number): number => commandWord(rank) + 1;

export function createSignals(ranks: number): SharedArrayBuffer {
  return new SharedArrayBuffer((ranks + 1) * lineWords * 4);
}

/** The leader's end. */
export class LeaderSignals {
  readonly #words: Int32Array;

  constructor(signals: SharedArrayBuffer) {
    this.#words = new Int32Array(signals);
  }

  /** Tells a rank that a command is at its port. */
  command(rank: number): void {
    Atomics.add(this.#words, commandWord(rank), 1);
    Atomics.notify(this.#words, commandWord(rank));
  }

  /** True once the rank has answered every command. */
  isDone(rank: number): boolean {
    return (
      Atomics.load(this.#words, doneWord(rank)) === Atomics.load(this.#words, commandWord(rank))
    );
  }

  /** The rank that failed first, or null. */
  failed(): number | null {
    const found = Atomics.load(this.#words, failedAt);
    return found === 0 ? null : found - 1;
  }

  /** The number of answers so far; `wait` returns when there are more, or after a while. */
  answers(): number {
    return Atomics.load(this.#words, answeredAt);
  }

  wait(answers: number): void {
    Atomics.wait(this.#words, answeredAt, answers, recheckMs);
  }
}

/** A rank's end. */
export class RankSignals {
  readonly #words: Int32Array;
  readonly #rank: number;

  constructor(signals: SharedArrayBuffer, rank: number) {
    this.#words = new Int32Array(signals);
    this.#rank = rank;
  }

  /** Waits until there is a command that was not answered. */
  waitForCommand(): void {
    const done = Atomics.load(this.#words, doneWord(this.#rank));
    while (Atomics.load(this.#words, commandWord(this.#rank)) === done) {
      Atomics.wait(this.#words, commandWord(this.#rank), done);
    }
  }

  answered(): void {
    Atomics.add(this.#words, doneWord(this.#rank), 1);
    this.#wakeLeader();
  }

  /** Says that this rank has failed; whoever says so first is the cause. */
  fail(): void {
    Atomics.compareExchange(this.#words, failedAt, 0, this.#rank + 1);
    this.#wakeLeader();
  }

  #wakeLeader(): void {
    Atomics.add(this.#words, answeredAt, 1);
    Atomics.notify(this.#words, answeredAt);
  }
}
