/** Starts the threads of an edge beside its first one, each connected to each. */
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { connectPeers } from './peers.ts';
import type { Peers } from './peers.ts';
import { remoteThread } from './remote-objects.ts';
import type { EdgeThread, ThreadSettings, ThreadStart } from './thread-contract.ts';

export interface StartedThreads {
  /** The others, as the first thread sees them. */
  readonly peers: Peers;
  readonly others: readonly EdgeThread[];
  /** Tells the others how many requests wait in the fleet. */
  tellWaits(count: number): void;
  /** Ends the other threads, which have closed their databases. */
  end(): Promise<void>;
}

/** @param count all threads of the edge, this one included. */
export function startThreads(options: {
  readonly count: number;
  readonly folder: string;
  readonly settings: ThreadSettings;
}): StartedThreads {
  const { count, folder, settings } = options;
  const portsOf = Array.from({ length: count }, () => new Map<number, MessagePort>());
  for (const [one, ports] of portsOf.entries()) {
    for (const [other, otherPorts] of portsOf.entries()) {
      if (other <= one) continue;
      const { port1, port2 } = new MessageChannel();
      ports.set(other, port1);
      otherPorts.set(one, port2);
    }
  }
  const [ownPorts = new Map<number, MessagePort>(), ...othersPorts] = portsOf;
  const waits = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  let isEnding = false;
  const workers = othersPorts.map((ports, index) => {
    const start: ThreadStart = { own: index + 1, folder, settings, ports, waits };
    const worker = new Worker(new URL('./edge-thread.ts', import.meta.url), {
      workerData: start,
      transferList: [...ports.values()],
    });
    // Half of the tenants would be gone with it: the process ends, and its supervisor starts anew.
    worker.on('error', (error) => {
      throw error;
    });
    worker.on('exit', (code) => {
      if (!isEnding) throw new Error(`thread ${start.own} of the edge ended with code ${code}`);
    });
    return worker;
  });
  const peers = connectPeers({ own: 0, ports: ownPorts });
  return {
    peers,
    others: peers.others.map((thread) => remoteThread(peers, thread)),
    tellWaits: (waiting) => void Atomics.store(waits, 0, waiting),
    async end() {
      isEnding = true;
      peers.close();
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}
