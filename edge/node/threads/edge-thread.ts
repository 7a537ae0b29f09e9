/** The entry of each thread of an edge but the first; `start-threads.ts` starts and ends it. */
import { workerData } from 'node:worker_threads';
import type { Log } from '../../../infra/log.ts';
import { createServices, openStores } from '../node-services.ts';
import { repeat } from '../timers.ts';
import { connectPeers } from './peers.ts';
import { answerCalls, remoteFleet, remoteProcess } from './remote-objects.ts';
import { serveThread } from './serving.ts';
import type { ThreadStart } from './thread-contract.ts';

/** Prices go by the latest time that a thread has seen, also after an hour without requests. */
const lookAtClockEveryMs = 60_000;

// `startThreads` gives nothing else.
const { own, folder, settings, ports, waits } = workerData as ThreadStart;
const peers = connectPeers({ own, ports });
const process = remoteProcess(peers);
const log: Log = (...line) => void process.log(...line);
const clock = { nowMs: () => Date.now() };
const stores = await openStores(folder, { settings, clock, log, peers });
const { databases, latestTime } = stores;
const opened = createServices(stores, {
  ...process,
  fleet: remoteFleet(peers, { count: () => Atomics.load(waits, 0) }),
});
const lookAtClock = async (): Promise<void> => void latestTime.knownTime.of(clock.nowMs());
const { thread, requests } = serveThread(stores, opened, () => [
  repeat(lookAtClock, { everyMs: lookAtClockEveryMs, log }),
]);
const tenant = (id: string) => databases.openTenants.tenant(id);
peers.serve(answerCalls({ tenant, thread, requests, hub: null }));
