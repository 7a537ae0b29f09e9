/** A helper of the CPU backend: waits inside the kernels for tasks until the backend closes. */
import { workerData } from 'node:worker_threads';
import { failedAt } from './kernels/op-codes.ts';

export interface HelperStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** The thread's number; the caller is 0. */
  readonly thread: number;
}

// thread-pool.ts is the only one that starts this file, with just this.
const { module, memory, thread } = workerData as HelperStart;
const instance = await WebAssembly.instantiate(module, { env: { memory } });
// The binary exports it, see `kernelExports`; importing that file here would load the pool again.
const serve = instance.exports['serve'] as (thread: number) => void;

const failed = new Int32Array(memory.buffer, failedAt, 1);
let ended = false;
// Whatever ends this thread early, the caller must not wait for the task that it had taken.
process.on('exit', () => {
  if (!ended) Atomics.store(failed, 0, 1);
});
serve(thread);
ended = true;
