/** Grammars through the whole engine, over a stand-in model whose logits are noise. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import type { EngineEvent, EngineRequest } from '../../../gpu-worker/engine/request.ts';
import { packGrammar } from '../../../gpu-worker/grammar/packed-grammar.ts';
import type { PackedGrammar } from '../../../gpu-worker/grammar/packed-grammar.ts';
import {
  createDriver,
  createRequest,
  endOf,
  eventsOf,
  plainSampling,
  runAlone,
  runToEnd,
  textOf,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import { keptGrammar, objectGrammar, schemaGrammar } from '../../support/schemas/grammar-walk.ts';
import { faultOf, randomSchema } from '../../support/schemas/random-schema.ts';
import { tiny } from '../tokenizer/fixture.ts';

const vocabSize = 4096;
const model = { vocabSize, tokenText: tiny };
const endToken = at(tiny.endTokens, 0);
const thinkEnd = tiny.controlToken('</think>') ?? -1;
const tokenOf = (text: string): number => at(tiny.encode(text), 0);

/** Noise alone would hardly ever close a string. */
const towardsAnEnd = {
  ...plainSampling,
  temperature: 1,
  seed: 11,
  logitBias: ['"', '}', ']', '0'].map((text) => [tokenOf(text), 9] as const),
};

const person = grammarOf({
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    tags: { type: 'array', items: { enum: ['red', 'green', 'blue'] }, minItems: 1, maxItems: 3 },
  },
  required: ['name', 'age', 'tags'],
  additionalProperties: false,
});

function grammarOf(schema: object): PackedGrammar {
  const grammar = schemaGrammar(schema);
  if (grammar === null || grammar === 'endless') throw new Error('the schema allows something');
  return packGrammar(grammar);
}

function ask(options: Partial<EngineRequest> & { id: string }): EngineRequest {
  return createRequest({
    sampling: towardsAnEnd,
    outputTokensMax: 200,
    ignoreEnd: false,
    grammar: person,
    ...options,
  });
}

function reasonsOf(events: readonly EngineEvent[], id: string): string[] {
  return eventsOf(events, id).flatMap((event) => (event.kind === 'finished' ? [event.reason] : []));
}

test('an answer that ends is JSON of the schema, whatever the logits', () => {
  const seed = Date.now();
  let ended = 0;
  fc.assert(
    fc.property(randomSchema, fc.nat(1000), (schema, draw) => {
      const grammar = keptGrammar(schema);
      if (grammar === null) return;
      const sampling = { ...towardsAnEnd, seed: draw };
      const events = runAlone(ask({ id: 'a', grammar: packGrammar(grammar), sampling }), model);
      expect(endOf(events, 'a').error).toBe(null);
      if (reasonsOf(events, 'a')[0] !== 'stop') return;
      ended++;
      const text = textOf(events, 'a');
      expect(faultOf(schema, JSON.parse(text)), text).toBe(null);
    }),
    { seed, numRuns: 60 },
  );
  expect(ended, `seed ${seed}`).toBeGreaterThan(20);
});

test('any object is an object, greedily too', () => {
  for (const sampling of [towardsAnEnd, { ...towardsAnEnd, temperature: 0 }]) {
    const events = runAlone(
      ask({ id: 'a', grammar: packGrammar(objectGrammar()), sampling }),
      model,
    );
    expect(reasonsOf(events, 'a')).toEqual(['stop']);
    expect(Object.getPrototypeOf(JSON.parse(textOf(events, 'a')))).toBe(Object.prototype);
  }
});

test('a request that asks nothing else of its logits is held to its grammar too', () => {
  const words = ['red', 'green', { blue: [1, null] }];
  for (const temperature of [0, 1]) {
    const sampling = { ...plainSampling, temperature };
    const events = runAlone(ask({ id: 'a', sampling, grammar: grammarOf({ enum: words }) }), model);
    expect(words).toContainEqual(JSON.parse(textOf(events, 'a')));
  }
});

test('each of n choices fits, and is what its seed gives alone', () => {
  const events = runAlone(ask({ id: 'n', choices: 3 }), model);
  const texts = [0, 1, 2].map((choice) => textOf(events, 'n', choice));
  expect(new Set(texts).size).toBe(3);
  for (const [choice, text] of texts.entries()) {
    expect(JSON.parse(text)).toMatchObject({ name: expect.any(String) });
    const sampling = { ...towardsAnEnd, seed: 11 + choice };
    expect(textOf(runAlone(ask({ id: 'one', sampling }), model), 'one')).toBe(text);
  }
});

test('preemption by recompute changes nothing', () => {
  const requests = [0, 1, 2, 3].map((index) =>
    ask({
      id: `${index}`,
      cacheSalt: `${index}`,
      promptTokens: Int32Array.from({ length: 90 }, (_, place) => 10 + ((place * 7 + index) % 500)),
      sampling: { ...towardsAnEnd, seed: index, logitBias: [] },
      grammar: packGrammar(objectGrammar()),
    }),
  );
  const { engine } = createDriver({ ...model, blocks: 9, stepTokensMax: 64, sequencesMax: 4 });
  for (const request of requests) engine.submit(request);
  const crowded = runToEnd(engine);
  expect(engine.load().counters.preemptions).toBeGreaterThan(0);
  for (const request of requests) {
    const alone = runAlone(request, model);
    expect(tokensOf(crowded, request.id)).toEqual(tokensOf(alone, request.id));
    expect(reasonsOf(crowded, request.id)).toEqual(reasonsOf(alone, request.id));
  }
});

test('biases and penalties against all that the grammar allows do not break it', () => {
  const against = ['{', '"', '}', ',', ':', '0', '1'].map((text) => [tokenOf(text), -100] as const);
  const sampling = {
    ...towardsAnEnd,
    logitBias: [...against, [endToken, 100] as const],
    repetitionPenalty: 2,
    frequencyPenalty: 2,
    presencePenalty: -2,
    topK: 5,
    topP: 0.9,
    minP: 0.01,
  };
  const events = runAlone(
    ask({ id: 'a', sampling, grammar: grammarOf({ enum: ['{"0":1}', 10] }) }),
    model,
  );
  expect(['{"0":1}', 10]).toContainEqual(JSON.parse(textOf(events, 'a')));
});

test('an answer that is cut short says so, and has begun as the grammar does', () => {
  const events = runAlone(ask({ id: 'a', outputTokensMax: 4 }), model);
  expect(reasonsOf(events, 'a')).toEqual(['length']);
  expect(textOf(events, 'a')).toMatch(/^\{\s*"n/);
});

test('a stop string of the request still ends the answer', () => {
  const events = runAlone(ask({ id: 'a', stopStrings: ['"age"'] }), model);
  expect(reasonsOf(events, 'a')).toEqual(['stop']);
  expect(textOf(events, 'a')).toMatch(/^\{\s*"name":\s*".*",\s*$/s);
});

test('the grammar begins where the reasoning ends, and the answer does not end before', () => {
  const bias = [[endToken, 50] as const, [thinkEnd, 1] as const];
  const sampling = {
    ...towardsAnEnd,
    logitBias: [...towardsAnEnd.logitBias, ...bias],
    temperature: 2,
  };
  const events = runAlone(
    ask({ id: 'a', reasoningEndToken: thinkEnd, sampling, outputTokensMax: 900 }),
    model,
  );
  const tokens = at(tokensOf(events, 'a'), 0);
  const end = tokens.indexOf(thinkEnd);
  expect(end).toBeGreaterThan(0);
  expect(tokens.slice(0, end)).not.toContain(endToken);
  const answer = tiny.decode(tokens.slice(end + 1), { skipSpecial: true });
  expect(JSON.parse(answer)).toMatchObject({ name: expect.any(String) });
  expect(endOf(events, 'a').usage.reasoningTokens).toBe(end + 1);
});

test('logprobs are of the model’s own distribution, before the grammar', () => {
  const options = { id: 'a', logprobs: 5, outputTokensMax: 1, sampling: plainSampling };
  const entryOf = (events: readonly EngineEvent[]) =>
    at(
      events.flatMap((event) => (event.kind === 'output' ? (event.logprobs ?? []) : [])),
      0,
    );
  const free = entryOf(runAlone(ask({ ...options, grammar: null }), model));
  const held = entryOf(runAlone(ask(options), model));
  expect(held.top).toEqual(free.top);
  expect(free.token).toBe(at(free.top, 0).token);
  expect(held.logprob).toBeLessThan(free.logprob);
});

test('a row that is no distribution fails the request, also where the grammar rules it out', () => {
  const events = runAlone(ask({ id: 'a', promptTokens: Int32Array.of(5) }), {
    ...model,
    poisonToken: 5,
  });
  expect(endOf(events, 'a').error).toMatchObject({ kind: 'internal' });
});

test('the end of an answer in a grammar can’t be ignored', () => {
  const events = runAlone(ask({ id: 'a', ignoreEnd: true }), model);
  expect(endOf(events, 'a').error).toMatchObject({ kind: 'invalid' });
});
