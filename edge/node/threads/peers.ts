/**
 * The threads of one edge, as each of them sees the others: whom a tenant's database belongs to,
 * and how to call what the others hold. The threads are numbered from 0, which is the process's
 * first one: it has the fleet, too.
 */
import { strict as assert } from 'node:assert';
import type { MessagePort } from 'node:worker_threads';
import { connectPort } from './port-calls.ts';
import type { Call, Handed, PortCalls } from './port-calls.ts';

export interface Peers {
  readonly own: number;
  readonly count: number;
  /** The numbers of all but this one. */
  readonly others: readonly number[];
  /** The thread that alone opens the tenant's database, which has one writer. */
  ownerOf(tenant: string): number;
  /** Calls an object of another thread. */
  call(thread: number, call: Call, transfer?: readonly ReadableStream[]): Promise<unknown>;
  /** Calls it without an answer. */
  tell(thread: number, call: Call): void;
  /** Answers the others' calls from now on; those that came before have waited. */
  serve(answer: (call: Call) => Promise<Handed>): void;
  close(): void;
}

/** @param ports by the number of the thread to which each leads. */
export function connectPeers(options: {
  readonly own: number;
  readonly ports: ReadonlyMap<number, MessagePort>;
}): Peers {
  const { own, ports } = options;
  const count = ports.size + 1;
  const serving = Promise.withResolvers<(call: Call) => Promise<Handed>>();
  const answer = async (call: Call): Promise<Handed> => (await serving.promise)(call);
  const calls = new Map<number, PortCalls>();
  for (const [thread, port] of ports) calls.set(thread, connectPort(port, answer));
  const peer = (thread: number): PortCalls => {
    const found = calls.get(thread);
    assert(found !== undefined, `thread ${thread} is another one of ${count}`);
    return found;
  };
  return {
    own,
    count,
    others: [...ports.keys()],
    ownerOf: (tenant) => hashOf(tenant) % count,
    call: (thread, call, transfer) => peer(thread).call(call, transfer),
    tell: (thread, call) => peer(thread).tell(call),
    serve: serving.resolve,
    close: () => calls.forEach((each) => each.close()),
  };
}

/** FNV-1a over the name: the same in every thread, and even over names that are alike. */
function hashOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const character of name) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  }
  // The lowest bits alone would tell of the last characters alone.
  return hash >>> 6;
}
