/** An engine lets go of what its requests took. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { createDriver, createPrompt, createRequest } from '../../support/worker/engine-driver.ts';

test('thousands of requests leave nothing behind', () => {
  const { engine } = createDriver({ blocks: 16 });
  setFlagsFromString('--expose-gc');
  // The flag makes a collector available to contexts made after it.
  const collectGarbage = runInNewContext('gc') as () => void;
  const heapAfter = (from: number, to: number): number => {
    for (let round = from; round < to; round++) {
      const id = `r${round}`;
      const promptTokens = createPrompt(400, round);
      engine.submit(createRequest({ id, cacheSalt: id, promptTokens, outputTokensMax: 400 }));
      engine.step();
      engine.step();
      if (round % 3 === 0) engine.abort(id);
      else engine.submit(createRequest({ id: `${id}-more`, promptTokens, outputTokensMax: 1 }));
      engine.step();
      engine.abort(id);
      engine.abort(`${id}-more`);
    }
    collectGarbage();
    return process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  };
  const before = heapAfter(0, 100);
  const growthBytes = heapAfter(100, 2100) - before;
  // The prompts alone of these requests are 5 MB; what the test runner itself keeps is less than 1.
  expect(growthBytes).toBeLessThan(2_000_000);
  const load = engine.load();
  expect(load).toMatchObject({
    runningSequences: 0,
    waitingSequences: 0,
    tokensInFlight: 0,
    blocksFree: 16,
  });
  const { requestsAborted, requestsFinished } = load.counters;
  expect(requestsAborted + requestsFinished).toBe(2100 + 1400);
});
