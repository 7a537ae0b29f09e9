/** Objects that another thread of the edge holds, called by their contracts. */
import { fleetMethods } from '../../fleet/fleet-contract.ts';
import type { Fleet } from '../../fleet/fleet-contract.ts';
import { tenantMethods } from '../../tenant/tenant-contract.ts';
import type { Tenant } from '../../tenant/tenant-contract.ts';
import type { Peers } from './peers.ts';
import { callMethod, remoteObject } from './port-calls.ts';
import type { Call, Handed } from './port-calls.ts';
import { edgeThreadMethods, processMethods } from './thread-contract.ts';
import type { EdgeThread, Process } from './thread-contract.ts';

/** The thread that has the fleet, and speaks for the process. */
const first = 0;

export function remoteTenant(peers: Peers, id: string): Tenant {
  const owner = peers.ownerOf(id);
  return remoteObject<(typeof tenantMethods)[number], Tenant>(tenantMethods, (method, args) =>
    peers.call(owner, { object: 'tenant', id, method, args }),
  );
}

/** @param waits tells how many requests wait in the fleet, and asks nobody. */
export function remoteFleet(peers: Peers, waits: { count(): number }): Fleet {
  const object = 'fleet';
  const remote: Fleet = remoteObject<(typeof fleetMethods)[number], Fleet>(
    fleetMethods,
    (method, args) => peers.call(first, { object, method, args }),
  );
  const told = async (method: string, args: readonly unknown[]): Promise<void> =>
    peers.tell(first, { object, method, args });
  return {
    ...remote,
    // A request that nobody waits before is placed at once, or not refused for its wait.
    expectedRefusal: async (input) => (waits.count() === 0 ? null : remote.expectedRefusal(input)),
    // Whoever reports these waits for nothing.
    withdraw: (...args) => told('withdraw', args),
    started: (...args) => told('started', args),
    finished: (...args) => told('finished', args),
  };
}

export function remoteThread(peers: Peers, thread: number): EdgeThread {
  return remoteObject<(typeof edgeThreadMethods)[number], EdgeThread>(
    edgeThreadMethods,
    (method, args) => peers.call(thread, { object: 'thread', method, args }),
  );
}

export function remoteProcess(peers: Peers): Process {
  const object = 'process';
  const told = async (method: string, args: readonly unknown[]): Promise<void> =>
    peers.tell(first, { object, method, args });
  return {
    ...remoteObject<(typeof processMethods)[number], Process>(processMethods, (method, args) =>
      peers.call(first, { object, method, args }),
    ),
    log: (...args) => told('log', args),
    observe: (...args) => told('observe', args),
  };
}

/** Answers other threads' calls of what this thread holds. */
export function answerCalls(held: {
  readonly tenant: (id: string) => Tenant;
  readonly thread: EdgeThread;
  readonly requests: (call: Call) => Promise<Handed>;
  /** null in all but the first thread. */
  readonly hub: { readonly fleet: Fleet; readonly process: Process } | null;
}): (call: Call) => Promise<Handed> {
  const { thread, requests, hub } = held;
  return async (call) => {
    if (call.object === 'tenant' && call.id !== undefined) {
      return callMethod(held.tenant(call.id), tenantMethods, call);
    }
    if (call.object === 'thread') return callMethod(thread, edgeThreadMethods, call);
    if (call.object === 'requests') return requests(call);
    if (call.object === 'fleet' && hub) return callMethod(hub.fleet, fleetMethods, call);
    if (call.object === 'process' && hub) return callMethod(hub.process, processMethods, call);
    throw new Error(`this thread holds no ${call.object}`);
  };
}
