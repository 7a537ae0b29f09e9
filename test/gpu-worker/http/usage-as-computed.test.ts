/** Usage as it is computed, and requests of many answers, on a whole worker with a real engine. */
import { expect, test } from 'vitest';
import { completionSchema } from '../../support/edge/completion-schema.ts';
import { answering, httpWorker, parseEvents } from '../../support/worker/http-worker.ts';
import { startTinyWorker } from '../../support/worker/tiny-worker.ts';
import type { TinyWorker } from '../../support/worker/tiny-worker.ts';

const stepTokens = 64;

/** Token ids, so that their count is known without a tokenizer. */
function tokens(length: number, first = 300): number[] {
  return Array.from({ length }, (_, index) => first + ((index * 7) % 1000));
}

function leave(worker: TinyWorker, id: string, body: object) {
  const client = new AbortController();
  const answer = worker.post('/v1/completions', body, { id, signal: client.signal });
  const left = answer.then((response) => response.text()).catch(() => '');
  return { leave: () => client.abort(), left };
}

async function finalUsage(worker: TinyWorker, id: string) {
  await expect.poll(async () => (await worker.journal(id))?.status).toBe('aborted');
  return (await worker.journal(id))?.usage;
}

test.for([true, false])(
  'a client that leaves in the middle of a prefill pays what it reached, cached tokens as cached (stream: %s)',
  async (stream) => {
    await using worker = await startTinyWorker([
      '--step-tokens',
      `${stepTokens}`,
      '--sequences',
      '1',
    ]);
    const prompt = tokens(20_000);
    const start = { prompt: prompt.slice(0, 640), max_tokens: 1 };
    expect((await worker.post('/v1/completions', start)).status).toBe(200);

    const long = leave(worker, 'long', { prompt, max_tokens: 5, stream });
    const reached = async () => (await worker.journal('long'))?.usage.prompt_tokens ?? 0;
    await expect.poll(reached).toBeGreaterThan(1_000);
    // Sent only now: of two requests that wait to be read, the smaller one would go first.
    const queued = leave(worker, 'queued', { prompt: prompt.slice(0, 800), max_tokens: 5, stream });
    await expect.poll(async () => (await worker.journal('queued'))?.status).toBe('running');
    queued.leave();
    expect(await finalUsage(worker, 'queued')).toMatchObject({
      prompt_tokens: 0,
      completion_tokens: 0,
      prompt_cache_hit_tokens: 0,
    });
    const before = await reached();
    long.leave();
    const usage = await finalUsage(worker, 'long');
    expect(usage).toMatchObject({ prompt_cache_hit_tokens: 640, completion_tokens: 0 });
    expect(usage?.prompt_tokens).toBeGreaterThanOrEqual(before);
    expect(usage?.prompt_tokens).toBeLessThan(20_000);
    expect(((usage?.prompt_tokens ?? 0) - 640) % stepTokens).toBe(0);
    await Promise.all([long.left, queued.left]);
  },
);

test('of several prompts, those that were computed are counted, each once for all of its choices', async () => {
  await using worker = await startTinyWorker(['--step-tokens', '64', '--sequences', '1']);
  const prompt = [tokens(100), tokens(120, 400), tokens(10_000, 500)];
  const many = leave(worker, 'many', { prompt, n: 2, max_tokens: 3, ignore_eos: true });
  const reached = async () => (await worker.journal('many'))?.usage.prompt_tokens ?? 0;
  await expect.poll(reached).toBeGreaterThan(220 + 500);
  many.leave();
  const usage = await finalUsage(worker, 'many');
  expect(usage?.prompt_tokens).toBeLessThan(10_220);
  // The choices of the first two prompts may still wait, because older prompts go first.
  expect([0, 1, 2, 3, 4].map((choices) => 3 * choices)).toContain(usage?.completion_tokens);
  await many.left;
});

test.for([true, false])(
  'a request of 64 prompts with 8 choices each is answered (stream: %s)',
  async (stream) => {
    await using worker = await startTinyWorker();
    const prompt = Array.from({ length: 64 }, (_, index) => `Question ${index}: `);
    const body = { prompt, n: 8, max_tokens: 2, ignore_eos: true, stream };
    const options = stream ? { stream_options: { include_usage: true } } : {};
    const response = await worker.post('/v1/completions', { ...body, ...options }, { id: 'all' });
    expect(response.status).toBe(200);
    const text = await response.text();
    if (stream) {
      const finishes = parseEvents(text)
        .slice(0, -1)
        .flatMap((event) => completionSchema.parse(event).choices)
        .filter((choice) => choice.finish_reason === 'length');
      expect(new Set(finishes.map(({ index }) => index)).size).toBe(512);
    } else {
      expect(completionSchema.parse(JSON.parse(text)).choices).toHaveLength(512);
    }
    expect(await worker.journal('all')).toMatchObject({
      status: 'done',
      usage: { completion_tokens: 1024 },
    });
  },
);

test.for([
  { body: { prompt: ['a', 'b', 'c'], n: 3 }, param: 'prompt', answers: '3 prompts with 3 choices' },
  { body: { prompt: 'a', n: 8 }, param: 'n', answers: '1 prompts with 8 choices' },
])(
  'more answers than may wait are refused before any runs: %j',
  async ({ body, param, answers }) => {
    await using worker = await httpWorker({ script: answering('a'), waitingMax: 7 });
    for (const stream of [true, false]) {
      const response = await worker.app.request('/v1/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'tiny', ...body, stream }),
      });
      expect(response.status).toBe(400);
      const { error } = await response.json();
      expect(error).toMatchObject({ code: 'invalid_value', param });
      expect(error.message).toContain(answers);
      expect(error.message).toContain('at most 7');
    }
    expect(worker.engine.requests).toEqual([]);
  },
);
