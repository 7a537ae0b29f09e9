/**
 * Bounds the bytes of request bodies that are in memory at a time. A body reserves its bytes before
 * the first of them is read. A body that finds no room waits: in turn with other owners, and behind
 * what its own owner asked for before. Small bodies have a budget of their own, so they never wait
 * for large ones.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../errors.ts';

/** A small body is no longer than what a connection's buffers hold of a body that nobody reads. */
export const smallBodyBytesMax = 64 * 1024;
/** The budget's share of small bodies is one part in this many. */
const smallPart = 4;
/** An owner may use one part in this many, which leaves the others something. */
const ownerPart = 2;
/** Bodies that may wait at a time; each holds a connection with full buffers meanwhile. */
const waitersMax = 128;
const waitMsMax = 10_000;

export interface BodyBudget {
  /**
   * @param bytes at most the largest body.
   * @throws ApiError 429 when there is no room for too long, 499 once the signal is aborted.
   */
  reserve(owner: string, bytes: number, signal: AbortSignal): Promise<Reservation>;
  /** The bytes that are reserved now. */
  bytes(): number;
}

export interface Reservation {
  /** Keeps only this many bytes, because the body turned out to be shorter. */
  shrink(bytes: number): void;
  /** Gives all back; a second call does nothing. */
  release(): void;
}

export function createBodyBudget(options: {
  readonly bytesMax: number;
  /** The length of the longest body. */
  readonly bodyBytesMax: number;
}): BodyBudget {
  const { bytesMax, bodyBytesMax } = options;
  const smallBytesMax = Math.ceil(bytesMax / smallPart);
  const small = new Pool(smallBytesMax, smallBodyBytesMax);
  const large = new Pool(bytesMax - smallBytesMax, bodyBytesMax);
  return {
    reserve: (owner, bytes, signal) =>
      (bytes <= smallBodyBytesMax ? small : large).reserve(owner, bytes, signal),
    bytes: () => small.bytes() + large.bytes(),
  };
}

interface Waiter {
  readonly bytes: number;
  readonly proceed: (reservation: Reservation) => void;
}

class Pool implements BodyBudget {
  readonly #bytesMax: number;
  readonly #bodyBytesMax: number;
  readonly #ownerBytesMax: number;
  readonly #held = new Map<string, number>();
  /** Owners stand in the order of their turns. */
  readonly #waiting = new Map<string, Waiter[]>();
  #bytesHeld = 0;
  #waiters = 0;

  /** @param bodyBytesMax the longest body: there is room for one, once the others are gone. */
  constructor(poolBytes: number, bodyBytesMax: number) {
    this.#bytesMax = Math.max(poolBytes, bodyBytesMax);
    this.#bodyBytesMax = bodyBytesMax;
    this.#ownerBytesMax = Math.max(Math.floor(this.#bytesMax / ownerPart), bodyBytesMax);
  }

  async reserve(owner: string, bytes: number, signal: AbortSignal): Promise<Reservation> {
    assert(bytes <= this.#bodyBytesMax, 'a body that may be read has room in the budget');
    const fits = this.#ownerHasRoom(owner, bytes) && this.#bytesHeld + bytes <= this.#bytesMax;
    return fits && this.#waiters === 0
      ? this.#take(owner, bytes)
      : await this.#wait(owner, bytes, signal);
  }

  bytes(): number {
    return this.#bytesHeld;
  }

  #ownerHasRoom(owner: string, bytes: number): boolean {
    return (this.#held.get(owner) ?? 0) + bytes <= this.#ownerBytesMax;
  }

  #take(owner: string, bytes: number): Reservation {
    let left = bytes;
    this.#count(owner, bytes);
    const shrink = (to: number): void => {
      if (to >= left) return;
      this.#count(owner, to - left);
      left = to;
      this.#serve();
    };
    return { shrink, release: () => shrink(0) };
  }

  #count(owner: string, change: number): void {
    const bytes = (this.#held.get(owner) ?? 0) + change;
    if (bytes === 0) this.#held.delete(owner);
    else this.#held.set(owner, bytes);
    this.#bytesHeld += change;
    const isWithin = bytes >= 0 && this.#bytesHeld <= this.#bytesMax;
    assert(isWithin, 'bodies stay within their budget');
  }

  #wait(owner: string, bytes: number, signal: AbortSignal): Promise<Reservation> {
    if (this.#waiters === waitersMax) throw noRoomError();
    const { promise, resolve, reject } = Promise.withResolvers<Reservation>();
    const waiter = { bytes, proceed: resolve };
    this.#waiters++;
    this.#waiting.set(owner, [...(this.#waiting.get(owner) ?? []), waiter]);
    const giveUp = (error: ApiError): void => {
      this.#leave(owner, waiter);
      reject(error);
      this.#serve();
    };
    const onAbort = () => giveUp(new ApiError('client_left', 'The client closed the request.'));
    if (signal.aborted) onAbort();
    const late = setTimeout(() => giveUp(noRoomError()), waitMsMax);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#serve();
    return promise.finally(() => {
      clearTimeout(late);
      signal.removeEventListener('abort', onAbort);
    });
  }

  #leave(owner: string, waiter: Waiter): void {
    const queue = this.#waiting.get(owner) ?? [];
    const rest = queue.filter((each) => each !== waiter);
    if (rest.length === queue.length) return;
    this.#waiters--;
    if (rest.length === 0) this.#waiting.delete(owner);
    else this.#waiting.set(owner, rest);
  }

  #serve(): void {
    for (const [owner, [first]] of this.#waiting) {
      if (first === undefined || !this.#ownerHasRoom(owner, first.bytes)) continue;
      // Nobody overtakes this waiter, or a large body would wait for ever.
      if (this.#bytesHeld + first.bytes > this.#bytesMax) return;
      this.#leave(owner, first);
      // The owner's next turn comes after the others'; the loop meets the owner there again.
      const rest = this.#waiting.get(owner);
      this.#waiting.delete(owner);
      if (rest) this.#waiting.set(owner, rest);
      first.proceed(this.#take(owner, first.bytes));
    }
  }
}

function noRoomError(): ApiError {
  return new ApiError(
    'rate_limit_exceeded',
    'The server reads as many request bodies as it has memory for; try again.',
    { headers: { 'retry-after': '1' } },
  );
}
