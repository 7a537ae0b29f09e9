/** The engine over the real tiny model, its tokenizer and the CPU backend. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { EngineLoop } from '../../../gpu-worker/engine/engine.ts';
import { packGrammar } from '../../../gpu-worker/grammar/packed-grammar.ts';
import { openText } from '../../../gpu-worker/open-text.ts';
import type { ModelText } from '../../../gpu-worker/open-text.ts';
import {
  createRequest,
  endOf,
  eventsOf,
  plainSampling,
  runToEnd,
  textOf,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import { keptGrammar } from '../../support/schemas/grammar-walk.ts';
import { openForTest } from '../../support/worker/model-harness.ts';
import type { OpenedModel } from '../../support/worker/model-harness.ts';
import { faultOf, randomSchema } from '../../support/schemas/random-schema.ts';

interface ExpectedAnswer {
  readonly input_ids: number[];
  readonly mean_nll: number;
  readonly greedy: number[];
}

const directory = fileURLToPath(new URL('../../../gpu-worker/models/tiny/', import.meta.url));
// The file is ours; an independent implementation wrote it in float32.
const answers = JSON.parse(readFileSync(`${directory}expected.json`, 'utf8')) as ExpectedAnswer[];

let opened: OpenedModel;
let text: ModelText;

beforeAll(async () => {
  // Room for one of the three long prompts (50 blocks at most) and the short ones, not for two.
  opened = await openForTest(directory, { rowsMax: 320, blocks: 54, threads: 2 });
  text = await openText(directory);
});
afterAll(() => opened.close());

function createEngine(): EngineLoop {
  const { model } = opened;
  return new EngineLoop(
    {
      model,
      tokenText: text.tokenizer,
      endTokens: text.tokenizer.endTokens,
      drawSeed: () => 1,
      nowMs: () => performance.now(),
    },
    { stepTokensMax: 320, sequencesMax: 4, waitingMax: 16 },
  );
}

test('prompts computed together give the answers that are expected of each alone', () => {
  const engine = createEngine();
  for (const [index, answer] of answers.entries()) {
    engine.submit(
      createRequest({
        id: `${index}`,
        cacheSalt: `${index % 2}`,
        promptTokens: Int32Array.from(answer.input_ids),
        outputTokensMax: answer.greedy.length,
      }),
    );
  }
  const events = runToEnd(engine);
  for (const [index, answer] of answers.entries()) {
    expect(tokensOf(events, `${index}`)).toEqual([answer.greedy]);
    expect(textOf(events, `${index}`)).toBe(
      text.tokenizer.decode(answer.greedy, { skipSpecial: true }),
    );
  }
  expect(engine.load()).toMatchObject({ blocksFree: 54, runningSequences: 0 });
});

test('a long prompt asked again answers the same from its cached blocks', () => {
  const engine = createEngine();
  const long = at(answers, 3);
  const ask = (id: string) => {
    const promptTokens = Int32Array.from(long.input_ids);
    engine.submit(createRequest({ id, promptTokens, outputTokensMax: long.greedy.length }));
    return runToEnd(engine);
  };
  const first = ask('first');
  const again = ask('again');
  expect(endOf(first, 'first').usage.cachedTokens).toBe(0);
  expect(endOf(again, 'again').usage.cachedTokens).toBe(2752);
  expect(tokensOf(again, 'again')).toEqual([long.greedy]);
});

test('answers of random schemas, computed together, each fit their own', () => {
  const seed = Date.now();
  const answer = at(answers, 0);
  const closers = ['"', '}', ']', '0'].map((each) => at(text.tokenizer.encode(each), 0));
  let ended = 0;
  fc.assert(
    fc.property(fc.array(randomSchema, { minLength: 4, maxLength: 4 }), (schemas) => {
      const engine = createEngine();
      const asked = schemas.flatMap((schema, index) => {
        const grammar = keptGrammar(schema);
        if (grammar === null) return [];
        const sampling = {
          ...plainSampling,
          temperature: 1,
          seed: index,
          logitBias: closers.map((token) => [token, 5] as const),
        };
        const request = createRequest({
          id: `${index}`,
          cacheSalt: `${index}`,
          promptTokens: Int32Array.from(answer.input_ids),
          outputTokensMax: 150,
          ignoreEnd: false,
          sampling,
          grammar: packGrammar(grammar),
        });
        engine.submit(request);
        return [{ id: request.id, schema }];
      });
      const events = runToEnd(engine);
      for (const { id, schema } of asked) {
        expect(endOf(events, id).error).toBe(null);
        const finish = eventsOf(events, id).find((event) => event.kind === 'finished');
        if (finish?.kind !== 'finished' || finish.reason !== 'stop') continue;
        ended++;
        const written = textOf(events, id);
        expect(faultOf(schema, JSON.parse(written)), written).toBe(null);
      }
    }),
    { seed, numRuns: 6 },
  );
  expect(ended, `seed ${seed}`).toBeGreaterThan(5);
});

test('prompt logprobs have the mean that is expected, and n seeded choices repeat', () => {
  const engine = createEngine();
  const answer = at(answers, 1);
  const promptTokens = Int32Array.from(answer.input_ids);
  engine.submit(createRequest({ id: 'scored', promptTokens, promptLogprobs: 0 }));
  const sampling = { ...plainSampling, temperature: 3, seed: 7 };
  for (const id of ['one', 'two'])
    engine.submit(createRequest({ id, promptTokens, sampling, choices: 3, cacheSalt: id }));
  const events = runToEnd(engine);

  const prompts = eventsOf(events, 'scored').flatMap((each) =>
    each.kind === 'prompt' ? [each] : [],
  );
  const scored = (at(prompts, 0).logprobs ?? []).flatMap((each) =>
    each === null ? [] : [each.logprob],
  );
  const sum = scored.reduce((total, logprob) => total - logprob, 0);
  expect(sum / scored.length).toBeCloseTo(answer.mean_nll, 4);
  expect(tokensOf(events, 'one')).toEqual(tokensOf(events, 'two'));
  expect(new Set(tokensOf(events, 'one').map((tokens) => tokens.join())).size).toBe(3);
});
