/** The engine over the goldens: what it keeps and takes away of their caches changes no token. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EngineLoop } from '../../../gpu-worker/engine/engine.ts';
import {
  createRequest,
  endOf,
  letterText,
  runToEnd,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import { readGolden } from '../../support/worker/golden.ts';
import { continueGreedily, openForTest } from '../../support/worker/model-harness.ts';
import type { OpenedModel } from '../../support/worker/model-harness.ts';

const stepTokensMax = 64;
/** Two sequences of 150 tokens need three blocks each. */
const blocks = 5;

describe.each(['dsv32-f32', 'glm-dsa-f32'] as const)('the engine on the golden %s', (name) => {
  const golden = readGolden(name);
  let opened: OpenedModel;
  beforeAll(async () => {
    opened = await openForTest(golden.directory, { rowsMax: 128, blocks });
  });
  afterAll(() => opened.close());

  const createEngine = () =>
    new EngineLoop(
      {
        model: opened.model,
        tokenText: letterText,
        endTokens: [1],
        drawSeed: () => 1,
        nowMs: () => performance.now(),
      },
      { stepTokensMax, sequencesMax: 4, waitingMax: 16 },
    );

  test('continues a prompt that it has computed, and one that it has cached, as expected', () => {
    const engine = createEngine();
    const ask = (id: string) => {
      const promptTokens = Int32Array.from(golden.input_ids);
      engine.submit(createRequest({ id, promptTokens, outputTokensMax: golden.greedy.length }));
      return runToEnd(engine);
    };
    const [first, again] = [ask('first'), ask('again')];
    expect(tokensOf(first, 'first')).toEqual([golden.greedy]);
    expect(tokensOf(again, 'again')).toEqual([golden.greedy]);
    const whole = Math.floor((golden.input_ids.length - 1) / 64) * 64;
    expect(endOf(first, 'first').usage.cachedTokens).toBe(0);
    expect(endOf(again, 'again').usage.cachedTokens).toBe(whole);
  });

  test('goes on with a sequence that was preempted as if it had not been', () => {
    const prompts = [golden.input_ids.slice(0, 120), golden.input_ids.slice(0, 121).toReversed()];
    const expected = prompts.map((prompt) => continueGreedily(opened, prompt, 30));
    const engine = createEngine();
    for (const [index, prompt] of prompts.entries()) {
      const promptTokens = Int32Array.from(prompt);
      engine.submit(createRequest({ id: `${index}`, promptTokens, outputTokensMax: 30 }));
    }
    const events = runToEnd(engine);
    expect(engine.load().counters.preemptions).toBeGreaterThan(0);
    for (const [index, tokens] of expected.entries()) {
      expect(tokensOf(events, `${index}`)).toEqual([tokens]);
    }
  });
});
