/** Groups that step together: what each request is told, where it goes, and what is refused. */
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { EngineGroups } from '../../../gpu-worker/engine/engine-groups.ts';
import type { EngineEvent } from '../../../gpu-worker/engine/request.ts';
import {
  createPrompt,
  createRequest,
  endToken,
  letterText,
  runAlone,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import { createHashModel } from '../../support/worker/hash-model.ts';

function createGroups(count: number, limits: { sequencesMax?: number; waitingMax?: number } = {}) {
  const models = Array.from({ length: count }, () =>
    createHashModel({
      vocabSize: 64,
      contextLength: 1024,
      blocks: 64,
      rowsMax: 96,
      logitRowsMax: 4,
    }),
  );
  let steps = 0;
  const engine = new EngineGroups(
    {
      model: {
        groups: models,
        forward(batches) {
          steps++;
          for (const [group, batch] of batches.entries()) {
            if (batch !== null) at(models, group).forward(batch);
          }
        },
      },
      tokenText: letterText,
      endTokens: [endToken],
      drawSeed: () => 1,
      nowMs: () => 0,
    },
    {
      stepTokensMax: 96,
      sequencesMax: limits.sequencesMax ?? 4,
      waitingMax: limits.waitingMax ?? 8,
    },
  );
  const runToEnd = (): EngineEvent[] => {
    const events: EngineEvent[] = [];
    while (!engine.isIdle) events.push(...engine.step());
    return events;
  };
  const used = (): number[] =>
    models.flatMap(({ stepRows }, group) => (stepRows.length > 0 ? [group] : []));
  return { engine, models, runToEnd, used, steps: () => steps };
}

function numbered(count: number, outputTokensMax = 20) {
  return Array.from({ length: count }, (_, i) =>
    createRequest({ id: `r${i}`, promptTokens: createPrompt(70 + i, i + 1), outputTokensMax }),
  );
}

describe('groups of one engine', () => {
  test('give each request what it gets alone, and step together', () => {
    const requests = numbered(6);
    const { engine, runToEnd, used, steps } = createGroups(3);
    const events = [...engine.submit(...requests), ...runToEnd()];
    for (const request of requests) {
      expect(tokensOf(events, request.id)).toEqual(tokensOf(runAlone(request), request.id));
    }
    expect(used()).toEqual([0, 1, 2]);
    // Two requests a group: far fewer steps than one after the other.
    expect(steps()).toBeLessThan(40);
    expect(engine.load().counters).toMatchObject({ requestsFinished: 6, outputTokens: 120 });
    expect(engine.load().blocksTotal).toBe(3 * 64);
  });

  test('send a prompt where its prefix is cached, unless the queue there is longer', () => {
    const { engine, models, runToEnd } = createGroups(4);
    const prompt = createPrompt(300);
    const ask = (id: string) => createRequest({ id, promptTokens: prompt });
    engine.submit(ask('first'));
    runToEnd();
    const home = models.findIndex(({ stepRows }) => stepRows.length > 0);
    engine.submit(ask('second'));
    const again = runToEnd().find((event) => event.kind === 'end');
    expect(again?.usage.cachedTokens).toBe(256);
    expect(models.filter(({ stepRows }) => stepRows.length > 0)).toHaveLength(1);
    // Its home has 700 tokens ahead of it now; computing 256 elsewhere is sooner.
    engine.submit(createRequest({ id: 'long', promptTokens: prompt, outputTokensMax: 700 }));
    engine.step();
    engine.submit(ask('third'));
    runToEnd();
    const used = [...models.entries()].filter(([, { stepRows }]) => stepRows.length > 0);
    expect(used.map(([group]) => group)).toHaveLength(2);
    expect(used.map(([group]) => group)).toContain(home);
  });

  test('share nothing between salts', () => {
    const { engine, runToEnd } = createGroups(2);
    const promptTokens = createPrompt(300);
    engine.submit(createRequest({ id: 'a', promptTokens, cacheSalt: 'a' }));
    runToEnd();
    engine.submit(createRequest({ id: 'b', promptTokens, cacheSalt: 'b' }));
    const end = runToEnd().find((event) => event.kind === 'end');
    expect(end?.usage.cachedTokens).toBe(0);
  });

  test('queue all requests of a call, or refuse all with one reason', () => {
    const { engine, runToEnd } = createGroups(2);
    const bad = createRequest({ id: 'bad', promptTokens: Int32Array.of(2, 99) });
    const refused = engine.submit(...numbered(3), bad);
    expect(refused.map((event) => event.kind)).toEqual(['end', 'end', 'end', 'end']);
    expect(refused.map((event) => event.kind === 'end' && event.error?.message)).toEqual(
      Array(4).fill('prompt token 99 is not in 0..63'),
    );
    expect(engine.isIdle).toBe(true);
    expect(engine.load().counters.requestsRefused).toBe(4);
    expect(engine.submit(...numbered(4))).toEqual([]);
    expect(runToEnd().filter((event) => event.kind === 'end')).toHaveLength(4);
  });

  test('abort a request wherever it is, and leave the others', () => {
    const { engine, runToEnd } = createGroups(2);
    const requests = numbered(4, 50);
    engine.submit(...requests);
    engine.step();
    expect(engine.abort('r2').at(-1)).toMatchObject({ kind: 'end', id: 'r2', error: null });
    expect(engine.abort('unknown')).toEqual([]);
    const ends = runToEnd().filter((event) => event.kind === 'end');
    expect(ends.map(({ id }) => id).toSorted()).toEqual(['r0', 'r1', 'r3']);
    expect(engine.load()).toMatchObject({ runningSequences: 0, tokensInFlight: 0 });
  });
});
