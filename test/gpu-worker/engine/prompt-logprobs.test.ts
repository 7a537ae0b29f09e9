import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import type { EngineEvent, EngineRequest } from '../../../gpu-worker/engine/request.ts';
import {
  createDriver,
  createPrompt,
  createRequest,
  endOf,
  eventsOf,
  runAlone,
  runToEnd,
} from '../../support/worker/engine-driver.ts';

function scored(options: Partial<EngineRequest> = {}): EngineRequest {
  return createRequest({
    id: 'p',
    promptTokens: createPrompt(150),
    promptLogprobs: 2,
    outputTokensMax: 3,
    ...options,
  });
}

function promptLogprobs(events: readonly EngineEvent[], id = 'p') {
  const prompts = eventsOf(events, id).flatMap((event) => (event.kind === 'prompt' ? [event] : []));
  expect(prompts).toHaveLength(1);
  return at(prompts, 0).logprobs;
}

test('there is one entry for each prompt token, none for the first', () => {
  const logprobs = promptLogprobs(runAlone(scored()));
  expect(logprobs).toHaveLength(150);
  expect(logprobs?.[0]).toBeNull();
  const tokens = createPrompt(150);
  for (const [position, entry] of logprobs?.entries() ?? []) {
    if (position === 0) continue;
    expect(entry?.token).toBe(tokens[position]);
    expect(entry?.top).toHaveLength(2);
    expect(entry?.logprob).toBeLessThanOrEqual(entry?.top[0]?.logprob ?? -Infinity);
  }
});

test('they do not depend on the chunks, nor on how many rows a step may score', () => {
  const expected = promptLogprobs(runAlone(scored(), { logitRowsMax: 1000 }));
  for (const logitRowsMax of [1, 2, 7, 64, 149, 150]) {
    for (const stepTokensMax of [8, 33, 300]) {
      const { engine } = createDriver({ stepTokensMax, logitRowsMax });
      engine.submit(scored());
      expect(promptLogprobs(runToEnd(engine))).toEqual(expected);
    }
  }
});

test('a step scores no more rows than one call of the model takes, so that others are not held up', () => {
  const { engine, model } = createDriver({ stepTokensMax: 64, logitRowsMax: 5 });
  engine.submit(createRequest({ id: 'other', outputTokensMax: 60 }));
  engine.step();
  engine.submit(scored());
  engine.submit(scored({ id: 'q' }));
  for (let step = 0; step < 59; step++) {
    const before = model.logitRows;
    const events = engine.step();
    expect(eventsOf(events, 'other').some((event) => event.kind === 'output')).toBe(true);
    expect(model.logitRows - before).toBeLessThanOrEqual(5 + 3);
  }
});

test('such a request takes no cached prefix, but leaves one', () => {
  const { engine } = createDriver();
  for (const id of ['p', 'again']) {
    engine.submit(scored({ id }));
    const events = runToEnd(engine);
    expect(endOf(events, id).usage.cachedTokens).toBe(0);
    expect(promptLogprobs(events, id)).toEqual(promptLogprobs(runAlone(scored())));
  }
  engine.submit(createRequest({ id: 'plain', promptTokens: createPrompt(150) }));
  expect(endOf(runToEnd(engine), 'plain').usage.cachedTokens).toBe(128);
});

test('a prompt of one token has one empty entry, also without output', () => {
  const promptTokens = Int32Array.of(5);
  expect(promptLogprobs(runAlone(scored({ promptTokens })))).toEqual([null]);
  const events = runAlone(scored({ outputTokensMax: 0 }));
  expect(promptLogprobs(events)).toHaveLength(150);
  expect(endOf(events, 'p').usage.outputTokens).toBe(0);
});

test('the choices after the first do not score the prompt again', () => {
  const { engine, model } = createDriver({ logitRowsMax: 200, stepTokensMax: 200 });
  engine.submit(scored({ choices: 3, outputTokensMax: 1 }));
  runToEnd(engine);
  expect(model.logitRows).toBe(149 + 3);
});
