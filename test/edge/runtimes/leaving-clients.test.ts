/**
 * Clients that leave at random moments, over a whole edge on Node and a whole worker: each request
 * is billed exactly what the worker's journal says of it, and everything that the worker computed
 * is on some bill.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { seededRandom } from '../../support/random.ts';
import type { Random } from '../../support/random.ts';
import { startTinySystem, workerToken } from '../../support/tiny-system.ts';

/** Small enough that requests wait for one another. */
const flags = ['--step-tokens', '128', '--sequences', '4', '--waiting', '64'];
const requests = 120;
const lanes = 8;
/** The time until the last of the clients have had some of their answer. */
const leaveMsMax = 2_000;

/** Short and long prompts of few kinds, so that some of them are cached. */
function randomBody(random: Random): { path: string; body: object } {
  const text = 'The harbor opens at nine. '.repeat(random.choose([1, 1, 1, 30, 120]));
  const question = `${random.choose(['', 'A', 'B'])}${text}${random.integer(0, 20)}`;
  const fields = {
    model: 'tiny',
    max_tokens: random.integer(1, 30),
    stream: random.uniform() < 0.7,
  };
  const messages = [{ role: 'user', content: question }];
  return random.choose([
    { path: '/v1/chat/completions', body: { ...fields, messages, n: random.integer(1, 3) } },
    { path: '/v1/completions', body: { ...fields, prompt: [question, text], n: 2 } },
    { path: '/anthropic/v1/messages', body: { ...fields, messages } },
  ]);
}

test('each client that leaves is billed what the journal says, and all that was computed is billed', async () => {
  await using system = await startTinySystem(flags);
  const { worker, tenant } = system;
  const seed = Date.now() % 1_000_000;
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  const plan = Array.from({ length: requests }, () => ({
    ...randomBody(random),
    leaveMs: random.uniform() < 0.1 ? null : random.uniform() ** 3 * leaveMsMax,
  }));
  const queue = plan.values();
  const lane = async (): Promise<void> => {
    for (const { path, body, leaveMs } of queue) {
      const client = new AbortController();
      const left = leaveMs === null ? null : sleep(leaveMs).then(() => client.abort());
      await system
        .ask(path, body, client.signal)
        .then((response) => response.text())
        .catch(() => '');
      await left;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  await expect.poll(() => tenant.openHolds(0)).toEqual([]);

  const billed = { prompt: 0, cached: 0, output: 0 };
  const kinds = new Map<string, number>();
  for (const entry of await tenant.entries({ afterId: 0, limit: 1_000 })) {
    if (entry.kind !== 'posted' && entry.kind !== 'voided') continue;
    kinds.set(entry.kind, (kinds.get(entry.kind) ?? 0) + 1);
    const { usage } = entry;
    const record = await worker.journal(entry.requestId ?? '');
    const count = {
      prompt: (usage?.inputCached ?? 0) + (usage?.inputUncached ?? 0),
      cached: usage?.inputCached ?? 0,
      output: (usage?.outputText ?? 0) + (usage?.outputReasoning ?? 0),
    };
    expect(count, `request ${entry.requestId}`).toEqual({
      prompt: record?.usage.prompt_tokens ?? 0,
      cached: record?.usage.prompt_cache_hit_tokens ?? 0,
      output: record?.usage.completion_tokens ?? 0,
    });
    expect(record?.status).not.toBe('running');
    billed.prompt += count.prompt;
    billed.cached += count.cached;
    billed.output += count.output;
  }
  expect(await countersOf(worker.worker.url)).toEqual(billed);
  expect(await tenant.audit()).toEqual([]);
  // On a slow machine hardly any but those that stayed have had something.
  const stayed = plan.filter(({ leaveMs }) => leaveMs === null).length;
  expect(kinds.get('posted')).toBeGreaterThanOrEqual(stayed);
});

/** The engine's own counts of what it computed, of all requests together. */
async function countersOf(url: string) {
  const response = await fetch(`${url}/metrics`, {
    headers: { authorization: `Bearer ${workerToken}` },
  });
  const text = await response.text();
  const read = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1]);
  return {
    prompt: read('sift_prompt_tokens_total'),
    cached: read('sift_cached_tokens_total'),
    output: read('sift_output_tokens_total'),
  };
}
