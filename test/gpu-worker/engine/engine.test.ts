import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { nothingComputed } from '../../../gpu-worker/engine/request.ts';
import type { EngineRequest } from '../../../gpu-worker/engine/request.ts';
import {
  createDriver,
  createPrompt,
  createRequest,
  endOf,
  endToken,
  eventsOf,
  plainSampling,
  runAlone,
  runToEnd,
  textOf,
  tokensOf,
} from '../../support/worker/engine-driver.ts';

const random = { ...plainSampling, temperature: 1, seed: 11 };

test('a request yields its prompt, its output, its finish and its end, in this order', () => {
  const { engine } = createDriver();
  engine.submit(createRequest({ id: 'one', outputTokensMax: 3 }));
  const events = runToEnd(engine);
  expect(events.map((event) => event.kind)).toEqual([
    'prompt',
    'output',
    'output',
    'output',
    'finished',
    'end',
  ]);
  expect(events.at(-2)).toMatchObject({ kind: 'finished', reason: 'length', stopMatch: null });
  expect(endOf(events, 'one')).toMatchObject({
    error: null,
    usage: { promptTokens: 3, cachedTokens: 0, outputTokens: 3, reasoningTokens: 0 },
  });
});

test('the output does not depend on the size of the prefill chunks', () => {
  const prompt = createPrompt(203);
  const expected = tokensOf(runAlone(createRequest({ id: 'a', promptTokens: prompt })), 'a');
  for (const stepTokensMax of [1, 2, 3, 7, 63, 64, 65, 128, 202, 203, 204, 1000]) {
    const { engine } = createDriver({ stepTokensMax, sequencesMax: 1 });
    engine.submit(createRequest({ id: 'a', promptTokens: prompt }));
    expect(tokensOf(runToEnd(engine), 'a'), `chunks of ${stepTokensMax}`).toEqual(expected);
  }
});

test('a repeated prompt reuses whole blocks, but always computes its last token', () => {
  for (const length of [1, 63, 64, 65, 127, 128, 129, 200]) {
    const { engine, model } = createDriver();
    const prompt = createPrompt(length);
    engine.submit(createRequest({ id: 'a', promptTokens: prompt, outputTokensMax: 1 }));
    const first = runToEnd(engine);
    const rowsBefore = model.stepRows.reduce((sum, rows) => sum + rows, 0);
    engine.submit(createRequest({ id: 'b', promptTokens: prompt, outputTokensMax: 1 }));
    const second = runToEnd(engine);
    const rows = model.stepRows.reduce((sum, each) => sum + each, 0) - rowsBefore;

    const cached = Math.floor((length - 1) / 64) * 64;
    expect(endOf(second, 'b').usage.cachedTokens, `${length} tokens`).toBe(cached);
    expect(rows).toBe(length - cached);
    expect(tokensOf(second, 'b')).toEqual(tokensOf(first, 'a'));
  }
});

test('a conversation that goes on reuses the blocks of its own earlier output', () => {
  const { engine } = createDriver();
  const prompt = createPrompt(100);
  engine.submit(createRequest({ id: 'a', promptTokens: prompt, outputTokensMax: 60 }));
  const answer = at(tokensOf(runToEnd(engine), 'a'), 0);
  const next = Int32Array.from([...prompt, ...answer, 5, 6, 7]);
  engine.submit(createRequest({ id: 'b', promptTokens: next }));
  expect(endOf(runToEnd(engine), 'b').usage.cachedTokens).toBe(128);
});

test('equal prompts under different salts share nothing', () => {
  const { engine } = createDriver();
  const prompt = createPrompt(200);
  for (const cacheSalt of ['x', 'y', '']) {
    engine.submit(createRequest({ id: cacheSalt, promptTokens: prompt, cacheSalt }));
    expect(endOf(runToEnd(engine), cacheSalt).usage.cachedTokens).toBe(0);
  }
  expect(engine.load().counters.cachedTokens).toBe(0);
});

test('a seeded request gives the same output whatever else is in the batch', () => {
  const mine = createRequest({ id: 'mine', promptTokens: createPrompt(90), sampling: random });
  const expected = tokensOf(runAlone(mine), 'mine');
  const { engine } = createDriver();
  for (let other = 0; other < 5; other++) {
    engine.submit(
      createRequest({
        id: `other-${other}`,
        promptTokens: createPrompt(30 + other * 20, other + 2),
        sampling: { ...random, seed: other },
        outputTokensMax: 20,
      }),
    );
  }
  const before = [engine.step(), engine.step()].flat();
  engine.submit(mine);
  expect(tokensOf([...before, ...runToEnd(engine)], 'mine')).toEqual(expected);
});

test('n choices compute the prompt once and use the seeds that follow', () => {
  const promptTokens = createPrompt(150);
  const { engine, model } = createDriver();
  const request = createRequest({ id: 'n', promptTokens, choices: 3, sampling: random });
  engine.submit(request);
  const events = runToEnd(engine);
  const choices = tokensOf(events, 'n');
  expect(choices).toHaveLength(3);
  for (const choice of [0, 1, 2]) {
    const alone = createRequest({
      id: 'alone',
      promptTokens,
      sampling: { ...random, seed: 11 + choice },
    });
    expect(choices[choice]).toEqual(tokensOf(runAlone(alone), 'alone')[0]);
  }
  // 150 tokens once, the 22 after the last full block for each other choice, 7 decodes for each.
  const rows = model.stepRows.reduce((sum, each) => sum + each, 0);
  expect(rows).toBe(150 + 2 * 22 + 3 * 7);
  expect(endOf(events, 'n').usage).toEqual({
    promptTokens: 150,
    cachedTokens: 0,
    outputTokens: 24,
    reasoningTokens: 0,
  });
});

test('a request for no output only computes the prompt, for every choice at once', () => {
  const { engine } = createDriver();
  engine.submit(createRequest({ id: 'none', outputTokensMax: 0, choices: 2 }));
  const events = runToEnd(engine);
  expect(events.map((event) => event.kind)).toEqual(['prompt', 'finished', 'finished', 'end']);
  expect(endOf(events, 'none').usage.outputTokens).toBe(0);
});

test('the end token is counted, and gives no text', () => {
  const bias = [[endToken, 1000] as const];
  const request = createRequest({
    id: 'e',
    ignoreEnd: false,
    sampling: { ...plainSampling, logitBias: bias },
  });
  const events = runAlone(request);
  expect(textOf(events, 'e')).toBe('');
  expect(tokensOf(events, 'e')).toEqual([[endToken]]);
  expect(eventsOf(events, 'e').find((event) => event.kind === 'finished')).toMatchObject({
    reason: 'stop',
    stopMatch: null,
  });
  expect(endOf(events, 'e').usage.outputTokens).toBe(1);
});

test('logits that are NaN end that request alone, as an internal error', () => {
  const { engine } = createDriver({ poisonToken: 63 });
  const poisoned = Int32Array.of(2, 63);
  engine.submit(createRequest({ id: 'bad', promptTokens: poisoned, choices: 2 }));
  engine.submit(createRequest({ id: 'good', sampling: noPoison() }));
  engine.submit(createRequest({ id: 'bad-scores', promptTokens: poisoned, promptLogprobs: 0 }));
  const events = runToEnd(engine);
  expect(endOf(events, 'bad').error).toMatchObject({ kind: 'internal' });
  expect(endOf(events, 'bad-scores').error).toMatchObject({ kind: 'internal' });
  expect(endOf(events, 'good').error).toBeNull();
  expect(engine.load()).toMatchObject({ runningSequences: 0, waitingSequences: 0 });
});

function noPoison(): typeof plainSampling {
  return { ...plainSampling, logitBias: [[63, -1000]] };
}

test('a step whose last row has no valid logits leaves none of its blocks in the prefix cache', () => {
  const { engine } = createDriver({ poisonToken: 63, stepTokensMax: 128 });
  const prompt = createPrompt(192);
  prompt[191] = 63;
  engine.submit(createRequest({ id: 'bad', promptTokens: prompt }));
  expect(endOf(runToEnd(engine), 'bad')).toMatchObject({
    error: { kind: 'internal' },
    usage: { promptTokens: 192, cachedTokens: 0 },
  });
  const longer = Int32Array.from([...prompt, 2, 3]);
  engine.submit(createRequest({ id: 'next', promptTokens: longer }));
  expect(endOf(runToEnd(engine), 'next').usage.cachedTokens).toBe(128);
});

test('an abort takes effect before the next step, at every step of a request', () => {
  const promptTokens = createPrompt(150);
  for (let steps = 0; steps < 8; steps++) {
    const { engine, model } = createDriver({ stepTokensMax: 50 });
    engine.submit(createRequest({ id: 'a', promptTokens, choices: 2, outputTokensMax: 9 }));
    const before = Array.from({ length: steps }, () => engine.step()).flat();
    const stepsBefore = model.stepRows.length;
    const events = [...before, ...engine.abort('a')];
    expect(engine.isIdle).toBe(true);
    expect(runToEnd(engine)).toEqual([]);
    expect(model.stepRows.length).toBe(stepsBefore);
    expect(endOf(events, 'a').error).toBeNull();
    const finished = events.filter((event) => event.kind === 'finished');
    expect(finished.map((event) => event.reason)).toEqual(['aborted', 'aborted']);
    expect(engine.load()).toMatchObject({ blocksFree: 64, tokensInFlight: 0 });
  }
});

test('an aborted request leaves what it computed to the next one', () => {
  const promptTokens = createPrompt(300);
  const { engine } = createDriver({ stepTokensMax: 100 });
  engine.submit(createRequest({ id: 'a', promptTokens }));
  engine.step();
  engine.step();
  engine.abort('a');
  engine.submit(createRequest({ id: 'b', promptTokens }));
  const events = runToEnd(engine);
  expect(endOf(events, 'b').usage.cachedTokens).toBe(192);
  const alone = createRequest({ id: 'b', promptTokens });
  expect(tokensOf(events, 'b')).toEqual(tokensOf(runAlone(alone), 'b'));
});

test('aborting an unknown request does nothing', () => {
  const { engine } = createDriver();
  expect(engine.abort('nobody')).toEqual([]);
});

test('a request that is aborted while it waits has used nothing, whatever is cached for it', () => {
  const { engine } = createDriver({ sequencesMax: 1 });
  const prompt = createPrompt(200);
  engine.submit(createRequest({ id: 'before', promptTokens: prompt, outputTokensMax: 1 }));
  runToEnd(engine);
  engine.submit(createRequest({ id: 'busy', outputTokensMax: 50 }));
  engine.submit(createRequest({ id: 'waits', promptTokens: prompt }));
  for (let step = 0; step < 5; step++) engine.step();
  expect(endOf(engine.abort('waits'), 'waits').usage).toEqual(nothingComputed);
});

test('a prompt is counted as it is computed, the cached part once the sequence has run', () => {
  const { engine } = createDriver({ stepTokensMax: 50 });
  const prompt = createPrompt(300);
  const start = prompt.subarray(0, 130);
  engine.submit(createRequest({ id: 'before', promptTokens: start, outputTokensMax: 1 }));
  runToEnd(engine);
  engine.submit(createRequest({ id: 'long', promptTokens: prompt, choices: 2 }));
  const events = [...engine.step(), ...engine.step(), ...engine.abort('long')];
  expect(events.map(({ kind, usage }) => [kind, usage.promptTokens, usage.cachedTokens])).toEqual([
    ['prefill', 178, 128],
    ['prefill', 228, 128],
    ['finished', 228, 128],
    ['finished', 228, 128],
    ['end', 228, 128],
  ]);
  expect(engine.load().counters).toMatchObject({ promptTokens: 130 + 228, cachedTokens: 128 });
});

test('requests that are submitted together are all taken or all refused', () => {
  const group = (name: string): EngineRequest[] =>
    ['1', '2', '3'].map((index) => createRequest({ id: name + index, choices: 2 }));
  const { engine } = createDriver({ waitingMax: 10, sequencesMax: 1 });
  expect(engine.submit(...group('a'))).toEqual([]);
  const refused = engine.submit(...group('b'));
  expect(refused.map(({ kind, id, usage }) => [kind, id, usage])).toEqual([
    ['end', 'b1', nothingComputed],
    ['end', 'b2', nothingComputed],
    ['end', 'b3', nothingComputed],
  ]);
  expect(endOf(refused, 'b1').error).toMatchObject({ kind: 'busy' });
  const tooMany = engine.submit(...group('c'), ...group('d'));
  expect(endOf(tooMany, 'd3').error).toMatchObject({
    kind: 'invalid',
    message: '12 choices are more than may wait at once (10)',
  });
  const oneWrong = engine.submit(...group('e').slice(1), createRequest({ id: 'f', choices: 0 }));
  expect(oneWrong.map(({ id }) => id)).toEqual(['e2', 'e3', 'f']);
  const events = runToEnd(engine);
  expect(new Set(events.map(({ id }) => id))).toEqual(new Set(['a1', 'a2', 'a3']));
});

test('what can never fit is refused at once, with the numbers', () => {
  const { engine } = createDriver({ contextLength: 200, blocks: 2 });
  const refuse = (prompt: number, outputTokensMax: number): unknown =>
    endOf(
      engine.submit(
        createRequest({ id: 'x', promptTokens: createPrompt(prompt), outputTokensMax }),
      ),
      'x',
    ).error;
  expect(refuse(150, 51)).toEqual({
    kind: 'too-long',
    message:
      '150 prompt tokens and up to 51 output tokens are 201 tokens; the context length is 200',
    retryAfterSeconds: null,
  });
  expect(refuse(128, 2)).toEqual({
    kind: 'too-long',
    message: '128 prompt tokens and up to 2 output tokens need 3 cache blocks; this engine has 2',
    retryAfterSeconds: null,
  });
  // The last token of all is never computed: 128 + 1 tokens take two blocks.
  engine.submit(createRequest({ id: 'y', promptTokens: createPrompt(128), outputTokensMax: 1 }));
  expect(endOf(runToEnd(engine), 'y').error).toBeNull();
  expect(engine.load().counters.requestsRefused).toBe(2);
});

test('a full queue is busy, and says when to come again', () => {
  const { engine } = createDriver({ waitingMax: 2 });
  engine.submit(createRequest({ id: 'a' }));
  engine.submit(createRequest({ id: 'b' }));
  const { error } = endOf(engine.submit(createRequest({ id: 'c' })), 'c');
  expect(error).toMatchObject({ kind: 'busy', message: 'the queue is full: 2 of 2 places' });
  expect(error?.retryAfterSeconds).toBeGreaterThanOrEqual(1);
  const many = endOf(engine.submit(createRequest({ id: 'd', choices: 3 })), 'd');
  expect(many.error?.kind).toBe('invalid');
  runToEnd(engine);
  expect(engine.submit(createRequest({ id: 'c' }))).toEqual([]);
});

test('the same id twice in flight is invalid', () => {
  const { engine } = createDriver();
  engine.submit(createRequest({ id: 'a' }));
  expect(endOf(engine.submit(createRequest({ id: 'a' })), 'a').error?.kind).toBe('invalid');
});

test('reasoning and answer are told apart, and the tag stands in neither', () => {
  const request = createRequest({
    id: 'r',
    reasoningEndToken: 20,
    outputTokensMax: 40,
    sampling: { ...random, seed: 5 },
  });
  const events = runAlone(request, { vocabSize: 24 });
  const outputs = events.flatMap((event) => (event.kind === 'output' ? [event] : []));
  const tag = outputs.findIndex((event) => event.tokens.includes(20));
  expect(tag).toBeGreaterThan(0);
  expect(outputs.slice(0, tag + 1).every((event) => event.channel === 'reasoning')).toBe(true);
  expect(outputs.slice(tag + 1).every((event) => event.channel === 'text')).toBe(true);
  expect(at(outputs, tag).text).toBe('');
  expect(endOf(events, 'r').usage).toMatchObject({ outputTokens: 40, reasoningTokens: tag + 1 });
});

test('tokens in flight count a prompt once, whatever the number of choices', () => {
  const { engine } = createDriver();
  const promptTokens = createPrompt(150);
  engine.submit(createRequest({ id: 'a', promptTokens, choices: 3, outputTokensMax: 10 }));
  // 150 and 10 for the first; the 22 after its last full block and 10 for each of the others.
  expect(engine.load().tokensInFlight).toBe(160 + 2 * 32);
  engine.abort('a');
  expect(engine.load().tokensInFlight).toBe(0);
});

test('a request draws the same tokens whether its logits are looked at or not, and in any company', () => {
  const sampling = { ...plainSampling, temperature: 0.9, topP: 0.95, topK: 30, seed: 11 };
  const seen = createRequest({ id: 'seen', sampling, outputTokensMax: 40, logprobs: 2 });
  const unseen = { ...seen, id: 'unseen', logprobs: null };
  const biased = {
    ...unseen,
    id: 'biased',
    sampling: { ...sampling, logitBias: [[5, 0] as const] },
  };
  const greedy = createRequest({ id: 'greedy', outputTokensMax: 40 });
  const expected = tokensOf(runAlone(seen), 'seen');
  expect(expected[0]).toHaveLength(40);
  expect(tokensOf(runAlone(unseen), 'unseen')).toEqual(expected);

  const { engine } = createDriver({ logitRowsMax: 3 });
  for (const request of [greedy, seen, unseen, biased]) engine.submit(request);
  const events = runToEnd(engine);
  for (const id of ['seen', 'unseen', 'biased']) expect(tokensOf(events, id)).toEqual(expected);
  expect(tokensOf(events, 'greedy')).toEqual(tokensOf(runAlone(greedy), 'greedy'));
});
