/** Requests of many prompts and choices, through a whole edge and a whole worker. */
import { expect, test } from 'vitest';
import { z } from 'zod';
import { completionSchema } from '../../support/edge/completion-schema.ts';
import { parseEvents } from '../../support/worker/http-worker.ts';
import { startTinySystem } from '../../support/tiny-system.ts';

const prompt = Array.from({ length: 64 }, (_, index) => `Question ${index}: `);
const errorSchema = z.object({
  error: z.object({ code: z.string(), param: z.string().nullable(), message: z.string() }),
});

test('64 prompts with 8 choices each are answered, whole and streamed, and paid in full', async () => {
  await using system = await startTinySystem();
  const body = { prompt, n: 8, max_tokens: 2, ignore_eos: true };
  const whole = await system.ask('/v1/completions', body);
  expect(whole.status).toBe(200);
  expect(completionSchema.parse(await whole.json()).choices).toHaveLength(512);

  const streamed = await system.ask('/v1/completions', { ...body, stream: true });
  expect(streamed.status).toBe(200);
  const events = parseEvents(await streamed.text());
  expect(events.at(-1)).toBe('[DONE]');
  const ended = events
    .slice(0, -1)
    .flatMap((event) => completionSchema.safeParse(event).data?.choices ?? [])
    .filter(({ finish_reason: reason }) => reason === 'length');
  expect(new Set(ended.map(({ index }) => index)).size).toBe(512);

  await expect.poll(() => system.tenant.openHolds(0)).toEqual([]);
  const entries = await system.tenant.entries({ afterId: 0, limit: 100 });
  const posted = entries.filter(({ kind }) => kind === 'posted');
  expect(posted.map(({ usage }) => usage?.outputText)).toEqual([1024, 1024]);
  expect(posted.map(({ note }) => note)).toEqual([null, null]);
});

test('more answers than its worker has places for are refused, with the limit, and cost nothing', async () => {
  await using system = await startTinySystem(['--waiting', '8']);
  for (const stream of [false, true]) {
    const body = { prompt: prompt.slice(0, 3), n: 3, max_tokens: 2, stream };
    const response = await system.ask('/v1/completions', body);
    expect(response.status).toBe(422);
    const { error } = errorSchema.parse(await response.json());
    expect(error).toMatchObject({ code: 'invalid_value', param: 'prompt' });
    expect(error.message).toContain('3 prompts with 3 choices each are 9 answers');
    expect(error.message).toContain('at most 8');
  }
  const fits = { prompt: prompt.slice(0, 4), n: 2, max_tokens: 2 };
  expect((await system.ask('/v1/completions', fits)).status).toBe(200);
  await expect.poll(() => system.tenant.openHolds(0)).toEqual([]);
  const entries = await system.tenant.entries({ afterId: 0, limit: 100 });
  expect(entries.map(({ kind }) => kind).filter((kind) => kind !== 'pending')).toEqual([
    'credit',
    'voided',
    'voided',
    'posted',
  ]);
});
