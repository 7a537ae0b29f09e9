/** Clients of one answer that come, leave and come back at random; fast-check prints the seed. */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sleep, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';

let edge: Harness;
beforeAll(async () => {
  edge = await startHarness({ settings: { keepAliveMs: 20, wholeAnswerQuietMs: 30 } });
});
afterAll(() => edge.close());

const paths = {
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'Go.' }] },
  '/v1/completions': { prompt: 'Go.' },
  '/anthropic/v1/messages': { messages: [{ role: 'user', content: 'Go.' }] },
  '/v1/responses': { input: 'Go.' },
} as const;

/** A visit of a client: it comes, reads for a while and leaves in one of two ways. */
const visit = fc.record({
  waitMs: fc.integer({ min: 0, max: 30 }),
  reads: fc.integer({ min: 0, max: 12 }),
  leave: fc.constantFrom('cancel' as const, 'abort' as const),
});
const plan = fc.record({
  path: fc.constantFrom(...(Object.keys(paths) as (keyof typeof paths)[])),
  stream: fc.boolean(),
  words: fc.integer({ min: 1, max: 60 }),
  pauseMs: fc.integer({ min: 0, max: 4 }),
  clients: fc.array(fc.array(visit, { maxLength: 4 }), { minLength: 1, maxLength: 5 }),
});
type Visit = typeof visit extends fc.Arbitrary<infer Value> ? Value : never;

/** The whole events of what has arrived; keep-alives are none. */
const eventsOf = (text: string): string =>
  text
    .slice(0, text.lastIndexOf('\n\n') + 2)
    .split(/(?<=\n\n)/)
    .filter((event) => event.startsWith('id: '))
    .join('');

async function readSome(response: Response, reads: number): Promise<string> {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = '';
  for (let read = 0; read < reads; read++) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  await reader?.cancel();
  return text;
}

/** Comes and goes, then stays to the end. @returns all the events, or the whole answer. */
async function client(
  ask: (more: { after: string; signal?: AbortSignal }) => Promise<Response>,
  { visits, stream }: { readonly visits: readonly Visit[]; readonly stream: boolean },
): Promise<string> {
  let events = '';
  const last = () =>
    events
      .match(/^id: (\d+)$/gm)
      ?.at(-1)
      ?.slice(4) ?? '';
  for (const { waitMs, reads, leave } of visits) {
    await sleep(waitMs);
    const gone = new AbortController();
    if (leave === 'abort') setTimeout(() => gone.abort(), waitMs);
    const response = await ask({ after: last(), signal: gone.signal });
    // One that left before it was answered is told so.
    if (response.status !== 499) expect(response.status).toBe(200);
    events += eventsOf(await readSome(response, reads).catch(() => ''));
  }
  const text = await (await ask({ after: last() })).text();
  return stream ? events + eventsOf(text) : text.trimStart();
}

test('whoever comes and goes, all get the same bytes, and one answer is made and paid', async () => {
  let keys = 0;
  const property = fc.asyncProperty(plan, async ({ path, stream, words, pauseMs, clients }) => {
    const key = `key-${keys++}`;
    edge.worker.script = {
      ...plainScript,
      words: Array.from({ length: words }, (_, index) => ` ${index}`),
      pauseMs,
    };
    const [asked, settled] = [edge.worker.requests.length, edge.settles.length];
    const limit = path === '/v1/responses' ? { max_output_tokens: 100 } : { max_tokens: 100 };
    const body = { model: testModel, stream, ...limit, ...paths[path] };
    const ask = ({ after, signal }: { after: string; signal?: AbortSignal }) =>
      edge.post(path, body, {
        headers: { 'idempotency-key': key, 'last-event-id': after },
        ...(signal && { signal }),
      });
    const texts = await Promise.all(clients.map((visits) => client(ask, { visits, stream })));
    await edge.idle();
    const stored = await (await ask({ after: '' })).text();
    expect(stored).toContain(` ${words - 1}`);
    for (const text of texts) expect(text).toBe(stored);
    expect(edge.worker.requests.length - asked).toBe(1);
    expect(edge.settles.slice(settled).map(({ outcome }) => outcome)).toEqual(['done']);
    expect((await edge.tenant.balance()).held).toBe(0);
  });
  await fc.assert(property, { numRuns: 60, interruptAfterTimeLimit: 60_000 });
  expect(await edge.tenant.audit()).toEqual([]);
});
