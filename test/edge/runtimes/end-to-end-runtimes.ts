/**
 * The end-to-end suite's edge, seeded over HTTP alone, so that every runtime starts the same way.
 */
import { expect, test } from 'vitest';
import { plainScript, startStubWorker } from '../../support/edge/edge-stub-worker.ts';
import type { StubScript } from '../../support/edge/edge-stub-worker.ts';
import { operatorOf, seedModel, seedModelAndWorker, seedPrice } from '../../support/edge/seed.ts';
import type { RunningEdge } from './end-to-end.ts';

const dollars = 1_000_000_000;

export async function seededEdge(runtime: {
  readonly url: string;
  readonly adminToken: string;
  readonly workerToken: string;
  close(): Promise<void>;
}): Promise<RunningEdge> {
  const operator = operatorOf(runtime.url, runtime.adminToken);
  const stub = await startStubWorker({ token: runtime.workerToken, model: seedModel });
  const worker = await seedModelAndWorker({ ...runtime, operator }, stub);
  return {
    baseUrl: runtime.url,
    apiKey: await operator.addTenant('acme', 10 * dollars),
    otherApiKey: await operator.addTenant('other', 10 * dollars),
    poorApiKey: await operator.addTenant('poor', 0),
    model: seedModel,
    price: seedPrice,
    stub,
    async close() {
      worker.stop();
      await runtime.close();
      await stub.close();
    },
  };
}

const uncachedPrompt = { promptTokens: 100, cachedTokens: 0 };
/** The time until the edge next writes to the client. */
const noticedMsMax = 4_000;

/**
 * A client leaves a stream of which the worker says nothing for a minute; the worker is stopped.
 */
export async function leaveSilence(edge: RunningEdge): Promise<void> {
  edge.stub.script = { ...plainScript, ...uncachedPrompt, pauseMs: 60_000 };
  const before = await balanceOf(edge);
  const leave = new AbortController();
  const answer = await fetch(`${edge.baseUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${edge.apiKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: edge.model,
      messages: [{ role: 'user', content: 'Hi.' }],
      stream: true,
    }),
    signal: leave.signal,
  });
  const id = answer.headers.get('x-request-id') ?? '';
  await answer.body?.getReader().read();
  leave.abort();
  await expect
    .poll(() => edge.stub.records.get(id)?.status, { timeout: noticedMsMax })
    .toBe('aborted');
  await expectBill(edge, { id, before });
}

/**
 * The states in which a whole answer, which is silent until it is complete, may be when its client
 * leaves.
 */
const phases: Readonly<Record<string, Partial<StubScript>>> = {
  'before the worker answers': { queuedMs: 60_000 },
  'before the first token': { pauseMs: 60_000 },
  'between two tokens': { pauseMs: 50, words: Array.from({ length: 2_000 }, (_, at) => ` ${at}`) },
};

export function describeLeavingWholeAnswers(edge: () => RunningEdge): void {
  const routes = { chat: '/v1/chat/completions', messages: '/anthropic/v1/messages' };
  for (const [phase, script] of Object.entries(phases)) {
    for (const [name, path] of Object.entries(routes)) {
      test(`a client that leaves a whole answer (${name}) ${phase} stops the worker and pays what was generated`, async () => {
        await leaveWholeAnswer(edge(), path, script);
      });
    }
  }
}

async function leaveWholeAnswer(
  edge: RunningEdge,
  path: string,
  script: Partial<StubScript>,
): Promise<void> {
  const { stub } = edge;
  stub.script = { ...plainScript, ...uncachedPrompt, ...script };
  const before = await balanceOf(edge);
  const asked = stub.requests.length;
  const leave = new AbortController();
  const answer = fetch(`${edge.baseUrl}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${edge.apiKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: edge.model,
      max_tokens: 4_000,
      messages: [{ role: 'user', content: 'Hi.' }],
    }),
    signal: leave.signal,
  });
  await expect.poll(() => stub.requests.length).toBe(asked + 1);
  const id = stub.requests.at(-1)?.id ?? '';
  const recordOf = () => stub.records.get(id);
  if (script.words) await expect.poll(() => recordOf()?.output).toBeGreaterThan(3);
  leave.abort();
  await expect(answer).rejects.toThrow('aborted');
  await expect.poll(() => recordOf()?.status, { timeout: noticedMsMax }).toBe('aborted');
  await expectBill(edge, { id, before });
}

/**
 * The balance has come down by what the worker's journal says of the request, to the nano-dollar.
 */
async function expectBill(
  edge: RunningEdge,
  { id, before }: { readonly id: string; readonly before: number },
): Promise<void> {
  const { output = Number.NaN } = edge.stub.records.get(id) ?? {};
  const { inputUncached, output: perOutput } = edge.price;
  const cost = uncachedPrompt.promptTokens * inputUncached + output * perOutput;
  await expect.poll(async () => before - (await balanceOf(edge))).toBe(Math.ceil(cost / 1_000_000));
}

/** The balance in nano-USD. */
export async function balanceOf(edge: RunningEdge): Promise<number> {
  const response = await fetch(`${edge.baseUrl}/user/balance`, {
    headers: { authorization: `Bearer ${edge.apiKey}` },
  });
  const body: { balance_infos: { total_balance: string }[] } = JSON.parse(await response.text());
  return Math.round(Number(body.balance_infos[0]?.total_balance) * 1e9);
}
