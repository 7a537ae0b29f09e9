/** A thread of the far sides of the edge: the stub worker, or a part of the load. */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import { runLoad, startInstantWorker } from './edge-load.ts';
import type { Load } from './edge-load.ts';

export type FarSide =
  | { readonly kind: 'stub' }
  | { readonly kind: 'load'; readonly loads: readonly Load[] };

assert(parentPort !== null, 'this module is the entry of a thread');
const port = parentPort;
// `edge-threads.ts` gives nothing else.
const side = workerData as FarSide;
if (side.kind === 'stub') {
  const { url } = await startInstantWorker();
  port.postMessage({ url });
} else {
  port.postMessage(await Promise.all(side.loads.map(runLoad)));
}
