/** Drafts change how many tokens a step gives, and no token. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { EngineLoop } from '../../../gpu-worker/engine/engine.ts';
import type { EngineRequest } from '../../../gpu-worker/engine/request.ts';
import { seededRandom } from '../../support/random.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import {
  createRequest,
  endOf,
  letterText,
  plainSampling,
  runToEnd,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import { openForTest } from '../../support/worker/model-harness.ts';
import type { Model } from '../../../gpu-worker/model/model.ts';

const seed = 401;
const config = {
  ...randomConfig('V3.2 with everything', seed),
  num_nextn_predict_layers: 1,
};
const path = join(temporaryDirectory(), 'drafting');
writeRandomCheckpoint(path, config, { seed, dtype: 'BF16', shards: 1 });

function run(model: Model, requests: readonly EngineRequest[], draftTokensMax: number) {
  const engine = new EngineLoop(
    { model, tokenText: letterText, endTokens: [1], drawSeed: () => 5, nowMs: () => 0 },
    { stepTokensMax: 64, sequencesMax: 4, waitingMax: 64, draftTokensMax },
  );
  engine.submit(...requests);
  const events = runToEnd(engine);
  const answers = requests.map(({ id }) => ({
    tokens: tokensOf(events, id),
    usage: endOf(events, id).usage,
    logprobs: events
      .filter((each) => each.kind === 'output' && each.id === id)
      .map((each) => (each.kind === 'output' ? [each.choice, each.logprobs] : []))
      .toSorted((a, b) => Number(a[0]) - Number(b[0])),
  }));
  return { answers, load: engine.load() };
}

/** Requests of every kind of sampling, more than run at once and than the blocks hold. */
function randomRequests(): EngineRequest[] {
  const random = seededRandom(seed);
  return Array.from({ length: 12 }, (_, index) =>
    createRequest({
      id: `${index}`,
      promptTokens: Int32Array.from({ length: random.integer(1, 90) }, () =>
        random.integer(2, config.vocab_size - 1),
      ),
      choices: random.choose([1, 1, 2]),
      outputTokensMax: random.choose([1, 2, 3, 40]),
      ignoreEnd: random.choose([true, false]),
      stopStrings: random.choose([[], ['q']]),
      logprobs: random.choose([null, 2]),
      sampling: {
        ...plainSampling,
        temperature: random.choose([0, 1]),
        frequencyPenalty: random.choose([0, 0.5]),
        seed: index,
      },
    }),
  );
}

test.each([1, 3, 5])('with %i drafts a step every answer is bit for bit as without', async (n) => {
  const opened = await openForTest(path, { drafts: true, rowsMax: 64, blocks: 9 });
  const requests = randomRequests();
  const plain = run(opened.model, requests, 0);
  const drafted = run(opened.model, requests, n);
  await opened.close();
  expect(drafted.answers.map((each) => each.tokens)).toEqual(plain.answers.map((e) => e.tokens));
  expect(drafted.answers.map((each) => each.logprobs)).toEqual(
    plain.answers.map((e) => e.logprobs),
  );
  expect(drafted.answers.map((each) => each.usage.outputTokens)).toEqual(
    plain.answers.map((each) => each.usage.outputTokens),
  );
  expect(drafted.load.counters.draftTokens).toBeGreaterThan(0);
});

test('a wrong draft leaves nothing behind, wherever it stands', async () => {
  const opened = await openForTest(path, { drafts: true, rowsMax: 64, blocks: 9 });
  const { model } = opened;
  const request = createRequest({ id: 'a', outputTokensMax: 12 });
  const [right] = at(run(model, [request], 0).answers, 0).tokens;
  const tokens = right ?? [];
  let rejected = 0;
  for (let wrong = 1; wrong < tokens.length - 1; wrong++) {
    const drafted = run(planted(model, { tokens, wrong, prompt: 3 }), [request], 3);
    expect(at(drafted.answers, 0).tokens).toEqual([tokens]);
    const { draftTokens, acceptedDrafts } = drafted.load.counters;
    expect(acceptedDrafts).toBeGreaterThan(0);
    rejected += draftTokens - acceptedDrafts;
  }
  expect(rejected).toBeGreaterThan(tokens.length / 2);
  await opened.close();
});

/** The model with drafts that are right everywhere but for output token `wrong`. */
function planted(
  model: Model,
  { tokens, wrong, prompt }: { tokens: readonly number[]; wrong: number; prompt: number },
): Model {
  let positions: Int32Array | null = null;
  return {
    vocabSize: model.vocabSize,
    contextLength: model.contextLength,
    limits: model.limits,
    blocks: model.blocks,
    forward(batch) {
      positions = null;
      model.forward(batch);
    },
    draft(batch, hiddenRows) {
      positions = batch.positions;
      model.draft?.(batch, hiddenRows);
    },
    logits: (rows) => model.logits(rows),
    sample(rows, draws) {
      const drawn = model.sample(rows, draws);
      if (positions === null) return drawn;
      const of = positions;
      return Array.from(rows, (row) => {
        const output = at(of, row) + 2 - prompt;
        const token = tokens[output] ?? 0;
        return output === wrong ? (token + 1) % model.vocabSize : token;
      });
    },
  };
}
