/** Entry module of an engine thread over the hash model, for tests of the thread and its handle. */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import { runEngineThread } from '../../../gpu-worker/engine/engine-thread.ts';
import type { OpenedModel } from '../../../gpu-worker/engine/engine-thread.ts';
import { endToken, letterText } from './engine-driver.ts';
import { createHashModel } from './hash-model.ts';

export interface HashEngineOptions {
  readonly waitingMax: number;
  /** The time that each step is made to take. */
  readonly stepMs: number;
  /** The moment at which the thread is to fail, if any. */
  readonly failsAt: 'never' | 'open' | 'crash-open' | 'step' | 'tenth-step' | 'exit-in-step';
}

assert(parentPort !== null, 'this module is the entry of a worker');
// The test that starts this thread passes exactly this type.
const options = workerData as HashEngineOptions;
if (options.failsAt === 'crash-open') throw new Error('the entry module is broken');

const pause = new Int32Array(new SharedArrayBuffer(4));

const description = {
  modelType: 'hash',
  revision: '0',
  backend: 'cpu' as const,
  contextLength: 4096,
  vocabSize: 64,
  parameters: 0,
  plan: {
    weightBytes: 0,
    activationBytes: 0,
    cacheBytes: 0,
    limitBytes: 0,
    reservedBytes: 0,
    blocks: 128,
    blockTokens: 64,
    bytesPerToken: 4,
    stepTokensMax: 96,
    mixedTokensMax: 48,
    sequencesMax: 8,
    waitingMax: options.waitingMax,
  },
  kernels: [],
};

await runEngineThread({
  port: parentPort,
  async open(onProgress): Promise<OpenedModel> {
    onProgress({ label: 'weights', done: 1, total: 2 });
    if (options.failsAt === 'open') throw new Error('config.json: hidden_size is missing');
    onProgress({ label: 'weights', done: 2, total: 2 });
    const model = createHashModel({
      vocabSize: 64,
      contextLength: 4096,
      blocks: 128,
      rowsMax: 96,
      logitRowsMax: 8,
    });
    const forward = model.forward.bind(model);
    let steps = 0;
    model.forward = (batch, observer) => {
      steps++;
      if (options.failsAt === 'tenth-step' && steps === 10) throw new Error('a device fault');
      if (options.failsAt === 'step') throw new Error('the backend lost its device');
      if (options.failsAt === 'exit-in-step') process.exit(3);
      if (options.stepMs > 0) Atomics.wait(pause, 0, 0, options.stepMs);
      forward(batch, observer);
    };
    return {
      model,
      tokenText: letterText,
      endTokens: [endToken],
      description,
      close: async () => {},
    };
  },
});
