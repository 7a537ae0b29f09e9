/** A worker one of whose ranks fails in the middle of an answer: its clients, edge and process. */
import { describe, expect, test } from 'vitest';
import { observeFault } from '../../support/edge/faulty-worker.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { stepsBeforeFault } from '../../support/worker/faulty-rank.ts';
import type { RankFault } from '../../support/worker/faulty-rank.ts';

const faults: { fault: RankFault; layout: readonly [number, number]; why: string }[] = [
  { fault: 'throws', layout: [2, 2], why: 'rank 1 of 4 failed: the GPU has fallen off the bus' },
  { fault: 'dies', layout: [4, 1], why: 'rank 1 of 4 failed: its thread ended' },
  {
    fault: 'hangs',
    layout: [2, 1],
    why: 'rank 1 of 2 failed: it made no progress for 3 s in a step',
  },
];

describe.each(faults)('a rank that $fault', ({ fault, layout, why }) => {
  test('ends answers with an error, their usage kept, and takes the worker out', async () => {
    const [tensorParallel, dataParallel] = layout;
    const seen = await observeFault({
      preload: `./test/support/worker/faulty-rank.ts?fault=${fault}`,
      flags: [
        ['--threads', '1', '--rank-seconds', '3'],
        ['--tensor-parallel', String(tensorParallel), '--data-parallel', String(dataParallel)],
      ].flat(),
      data: temporaryDirectory(),
    });
    const delivered = seen.events.slice(0, -1) as { usage: { completion_tokens: number } }[];
    expect(seen.events.at(-1)).toMatchObject({ error: { code: 'internal_error', message: why } });
    expect(delivered.at(-1)?.usage.completion_tokens).toBe(stepsBeforeFault);
    expect(seen.usage).toMatchObject({ status: 'failed', usage: delivered.at(-1)?.usage ?? {} });
    const reason = `the engine failed: ${why}`;
    expect(seen.health).toMatchObject({ status: 503, body: { status: 'failed', reason } });
    expect(seen.nextStatus).toBe(503);
    expect([seen.states[0], seen.states.at(-1)]).toEqual(['ready', 'failed']);
    // The supervisor's turn: no thread holds the process up, and a new worker can start.
    expect(seen.exitCode).toBe(70);
  });
});
