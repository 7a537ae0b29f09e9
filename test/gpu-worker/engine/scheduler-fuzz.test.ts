/**
 * Random arrivals, aborts, scopes and options over tiny caches. The hash model's logits depend on
 * every cache entry that a row sees, so equal output is a proof of paging, sharing, preemption and
 * recompute. fast-check prints the seed and the shrunk case of a failure.
 */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { nothingComputed } from '../../../gpu-worker/engine/request.ts';
import type { EngineEvent, EngineRequest } from '../../../gpu-worker/engine/request.ts';
import {
  createDriver,
  createPrompt,
  createRequest,
  endOf,
  eventsOf,
  plainSampling,
  runAlone,
  textOf,
  tokensOf,
} from '../../support/worker/engine-driver.ts';

interface Arrival {
  readonly beforeSteps: number;
  readonly abortAfterSteps: number | null;
  readonly options: Omit<Partial<EngineRequest>, 'id'>;
}

const sampling = fc.record({
  temperature: fc.constantFrom(0, 1),
  seed: fc.integer({ min: -5, max: 5 }),
  repetitionPenalty: fc.constantFrom(1, 1.5),
  frequencyPenalty: fc.constantFrom(0, 0.5),
  topK: fc.constantFrom(0, 5),
});

const arrival: fc.Arbitrary<Arrival> = fc
  .record({
    beforeSteps: fc.integer({ min: 0, max: 3 }),
    abortAfterSteps: fc.option(fc.integer({ min: 0, max: 12 }), { freq: 4 }),
    promptBase: fc.integer({ min: 1, max: 2 }),
    promptLength: fc.oneof(fc.integer({ min: 1, max: 220 }), fc.constantFrom(64, 128, 192)),
    cacheSalt: fc.constantFrom('x', 'y', 'z'),
    choices: fc.constantFrom(1, 1, 1, 2, 3),
    outputTokensMax: fc.integer({ min: 0, max: 60 }),
    ignoreEnd: fc.constantFrom(true, true, true, false),
    stopStrings: fc.constantFrom<string[]>([], [], [], ['q'], ['ab', 'zz']),
    promptLogprobs: fc.option(fc.constant(2), { freq: 4 }),
    logprobs: fc.option(fc.constant(1), { freq: 4 }),
    sampling,
  })
  .map(({ beforeSteps, abortAfterSteps, promptBase, promptLength, ...rest }) => ({
    beforeSteps,
    abortAfterSteps,
    options: {
      ...rest,
      promptTokens: createPrompt(promptLength, promptBase),
      sampling: { ...plainSampling, ...rest.sampling },
    },
  }));

const limits = fc
  .record({
    blocks: fc.integer({ min: 5, max: 9 }),
    mixedTokensMax: fc.integer({ min: 6, max: 90 }),
    beyondMixed: fc.constantFrom(0, 7, 40),
    sequencesMax: fc.integer({ min: 2, max: 6 }),
    logitRowsMax: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ beyondMixed, ...rest }) => ({
    ...rest,
    stepTokensMax: rest.mixedTokensMax + beyondMixed,
  }));

/** The output as a client sees it, without the usage, which the company may change. */
function outcomeOf(events: readonly EngineEvent[], id: string): unknown {
  const own = eventsOf(events, id);
  const choices = tokensOf(events, id).map((tokens, choice) => ({
    tokens,
    text: textOf(events, id, choice),
  }));
  const prompts = own.flatMap((event) => (event.kind === 'prompt' ? [event.logprobs] : []));
  const finishes = own
    .flatMap((event) => (event.kind === 'finished' ? [event] : []))
    .map(({ choice, reason, stopMatch }) => ({ choice, reason, stopMatch }))
    .toSorted((a, b) => a.choice - b.choice);
  return { choices, prompts, finishes };
}

/** Runs the arrivals through one engine; `preemptions` tells whether the cache was too small. */
function runTogether(
  arrivals: readonly Arrival[],
  limitsOfRun: {
    blocks: number;
    stepTokensMax: number;
    mixedTokensMax?: number;
    sequencesMax: number;
  },
) {
  const { engine, model } = createDriver(limitsOfRun);
  const events: EngineEvent[] = [];
  const requests = arrivals.map((each, index) =>
    createRequest({ ...each.options, id: `${index}` }),
  );
  const aborts = new Map<number, string>();
  let step = 0;
  const advance = (): void => {
    events.push(...engine.step());
    step++;
    const id = aborts.get(step);
    if (id !== undefined) events.push(...engine.abort(id));
    const { blocksFree, blocksTotal, waitingSequences, tokensInFlight } = engine.load();
    assert(blocksFree >= 0 && blocksFree <= blocksTotal && waitingSequences >= 0);
    assert.equal(tokensInFlight > 0, !engine.isIdle);
    assert(step < 5000, 'nothing goes on for ever');
  };
  for (const [index, each] of arrivals.entries()) {
    for (let count = 0; count < each.beforeSteps; count++) advance();
    events.push(...engine.submit(at(requests, index)));
    if (each.abortAfterSteps !== null) aborts.set(step + each.abortAfterSteps, `${index}`);
  }
  while (!engine.isIdle) advance();
  return { events, requests, load: engine.load(), model };
}

test('every request ends once, with the output that it has alone, and no block stays held', () => {
  let preemptions = 0;
  const property = fc.property(
    fc.array(arrival, { minLength: 4, maxLength: 10 }),
    limits,
    (arrivals, limitsOfRun) => {
      const { events, requests, load } = runTogether(arrivals, limitsOfRun);
      preemptions += load.counters.preemptions;
      expect(load).toMatchObject({
        runningSequences: 0,
        waitingSequences: 0,
        tokensInFlight: 0,
        blocksFree: limitsOfRun.blocks,
      });
      for (const request of requests) {
        const { error } = endOf(events, request.id);
        expect(error).toBeNull();
        const own = eventsOf(events, request.id);
        expect(own.at(-1)?.kind).toBe('end');
        const finishes = own.flatMap((event) => (event.kind === 'finished' ? [event] : []));
        expect(finishes.length).toBe(request.choices);
        checkUsage(own, request);
        if (finishes.some(({ reason }) => reason === 'aborted')) {
          checkAborted(events, request);
        } else {
          expect(outcomeOf(events, request.id)).toEqual(outcomeOf(runAlone(request), request.id));
        }
      }
    },
  );
  fc.assert(property, { numRuns: 100 });
  expect(preemptions, 'the caches are small enough to preempt').toBeGreaterThan(10);
});

/** Checks that an aborted request's tokens are the beginning of what it yields alone. */
function checkAborted(events: readonly EngineEvent[], request: EngineRequest): void {
  const alone = tokensOf(runAlone(request), request.id);
  for (const [choice, tokens] of tokensOf(events, request.id).entries()) {
    if (tokens !== undefined) expect(tokens).toEqual(at(alone, choice).slice(0, tokens.length));
  }
}

/** Counts only grow, however often a sequence is preempted, and end at no more than the prompt. */
function checkUsage(events: readonly EngineEvent[], request: EngineRequest): void {
  let before = nothingComputed;
  for (const { usage } of events) {
    expect(usage.promptTokens).toBeGreaterThanOrEqual(before.promptTokens);
    expect(usage.cachedTokens).toBeGreaterThanOrEqual(before.cachedTokens);
    expect(usage.outputTokens).toBeGreaterThanOrEqual(before.outputTokens);
    expect(usage.cachedTokens).toBeLessThanOrEqual(usage.promptTokens);
    before = usage;
  }
  expect(before.promptTokens).toBeLessThanOrEqual(request.promptTokens.length);
  const isComputed = events.some(({ kind }) => kind === 'prompt');
  if (isComputed) expect(before.promptTokens).toBe(request.promptTokens.length);
}

test('with room for all, the rows computed are exactly those that the usage counts, of aborted requests too', () => {
  const property = fc.property(
    fc.array(arrival, { minLength: 1, maxLength: 10 }),
    fc.integer({ min: 6, max: 90 }),
    (arrivals, stepTokensMax) => {
      const single = arrivals.map((each) => ({
        ...each,
        options: { ...each.options, choices: 1 },
      }));
      const run = runTogether(single, {
        blocks: 64,
        stepTokensMax: stepTokensMax + 10,
        sequencesMax: 10,
      });
      const usages = run.requests.map(({ id }) => endOf(run.events, id).usage);
      const rows = run.model.stepRows.reduce((sum, each) => sum + each, 0);
      const expected = usages.reduce(
        (sum, usage) =>
          sum + usage.promptTokens - usage.cachedTokens + Math.max(usage.outputTokens - 1, 0),
        0,
      );
      expect(run.load.counters.preemptions).toBe(0);
      expect(rows).toBe(expected);
      for (const [index, usage] of usages.entries()) {
        expect(usage.cachedTokens % 64).toBe(0);
        if (at(run.requests, index).promptLogprobs !== null) expect(usage.cachedTokens).toBe(0);
      }
      expect(run.load.counters).toMatchObject({
        promptTokens: usages.reduce((sum, usage) => sum + usage.promptTokens, 0),
        cachedTokens: usages.reduce((sum, usage) => sum + usage.cachedTokens, 0),
        outputTokens: usages.reduce((sum, usage) => sum + usage.outputTokens, 0),
        evictedBlocks: 0,
      });
    },
  );
  fc.assert(property, { numRuns: 50 });
});
