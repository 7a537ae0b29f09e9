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
  const small = createPool(smallBytesMax, smallBodyBytesMax);
  const large = createPool(bytesMax - smallBytesMax, bodyBytesMax);
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

/** @param bodyBytesMax the longest body: there is always room for one, once the others are gone. */
function createPool(poolBytes: number, bodyBytesMax: number): BodyBudget {
  const bytesMax = Math.max(poolBytes, bodyBytesMax);
  const ownerBytesMax = Math.max(Math.floor(bytesMax / ownerPart), bodyBytesMax);
  const held = new Map<string, number>();
  /** Owners stand in the order of their turns. */
  const waiting = new Map<string, Waiter[]>();
  let bytesHeld = 0;
  let waiters = 0;

  const count = (owner: string, change: number): void => {
    const bytes = (held.get(owner) ?? 0) + change;
    if (bytes === 0) held.delete(owner);
    else held.set(owner, bytes);
    bytesHeld += change;
    assert(bytes >= 0 && bytesHeld <= bytesMax, 'bodies stay within their budget');
  };

  const ownerHasRoom = (owner: string, bytes: number): boolean =>
    (held.get(owner) ?? 0) + bytes <= ownerBytesMax;

  const take = (owner: string, bytes: number): Reservation => {
    let left = bytes;
    count(owner, bytes);
    const shrink = (to: number): void => {
      if (to >= left) return;
      count(owner, to - left);
      left = to;
      serve();
    };
    return { shrink, release: () => shrink(0) };
  };

  const leave = (owner: string, waiter: Waiter): void => {
    const queue = waiting.get(owner) ?? [];
    const rest = queue.filter((each) => each !== waiter);
    if (rest.length === queue.length) return;
    waiters--;
    if (rest.length === 0) waiting.delete(owner);
    else waiting.set(owner, rest);
  };

  const serve = (): void => {
    for (const [owner, [first]] of waiting) {
      if (first === undefined || !ownerHasRoom(owner, first.bytes)) continue;
      // Nobody overtakes this waiter, or a large body would wait for ever.
      if (bytesHeld + first.bytes > bytesMax) return;
      leave(owner, first);
      // The owner's next turn comes after the others'; the loop meets the owner there again.
      const rest = waiting.get(owner);
      waiting.delete(owner);
      if (rest) waiting.set(owner, rest);
      first.proceed(take(owner, first.bytes));
    }
  };

  const wait = (owner: string, bytes: number, signal: AbortSignal): Promise<Reservation> => {
    if (waiters === waitersMax) throw noRoomError();
    const { promise, resolve, reject } = Promise.withResolvers<Reservation>();
    const waiter = { bytes, proceed: resolve };
    waiters++;
    waiting.set(owner, [...(waiting.get(owner) ?? []), waiter]);
    const giveUp = (error: ApiError): void => {
      leave(owner, waiter);
      reject(error);
      serve();
    };
    const onAbort = () => giveUp(new ApiError('client_left', 'The client closed the request.'));
    if (signal.aborted) onAbort();
    const late = setTimeout(() => giveUp(noRoomError()), waitMsMax);
    signal.addEventListener('abort', onAbort, { once: true });
    serve();
    return promise.finally(() => {
      clearTimeout(late);
      signal.removeEventListener('abort', onAbort);
    });
  };

  return {
    async reserve(owner, bytes, signal) {
      assert(bytes <= bodyBytesMax, 'a body that may be read has room in the budget');
      const fits = ownerHasRoom(owner, bytes) && bytesHeld + bytes <= bytesMax;
      return fits && waiters === 0 ? take(owner, bytes) : await wait(owner, bytes, signal);
    },
    bytes: () => bytesHeld,
  };
}

function noRoomError(): ApiError {
  return new ApiError(
    'rate_limit_exceeded',
    'The server reads as many request bodies as it has memory for; try again.',
    { headers: { 'retry-after': '1' } },
  );
}
