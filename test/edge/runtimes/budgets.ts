/** Budgets and leases of a running edge, as an account's keys use them. */
import { expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { dataOf } from '../../support/edge/edge-harness.ts';
import { seedPrice } from '../../support/edge/seed.ts';
import type { Operator } from '../../support/edge/seed.ts';
import type { RunningEdge } from './end-to-end.ts';

export const leaseTokens = 64;
const promptTokens = 1_000;

async function send(
  { baseUrl }: RunningEdge,
  method: string,
  path: string,
  request: { readonly key: string; readonly body?: unknown },
) {
  const { key, body } = request;
  const response = await fetch(`${baseUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, json: await response.json() };
}

const messages = [{ role: 'user', content: 'Hi.' }];

export function describeBudgets(edgeOf: () => RunningEdge, operatorOf: () => Operator): void {
  describeNamedBudgets(edgeOf, operatorOf);
  describeLeases(edgeOf, operatorOf);
}

function describeNamedBudgets(edgeOf: () => RunningEdge, operatorOf: () => Operator): void {
  test('a budget that a key makes binds the requests that name it', async () => {
    const { model, stub, baseUrl } = edgeOf();
    stub.script = plainScript;
    const key = await operatorOf().addTenant('budgeted', 1_000_000_000);
    const made = await operatorOf().call('POST', '/tenants/budgeted/keys', { scopes: ['admin'] });
    // The route's answer has the key in it.
    const { key: admin } = made as { key: string };
    const body = { model, messages, max_tokens: 100 };
    const quoted = await send(edgeOf(), 'POST', '/v1/quote', { key, body });
    const limit = quoted.json.max_cost_nano_usd;
    const windows = [{ window: 'month', limit_nano_usd: limit }];
    const terms = { zone: 'America/New_York', windows };
    const put = await send(edgeOf(), 'PUT', '/v1/budgets/agent', { key: admin, body: terms });
    expect(put).toMatchObject({ status: 200, json: { windows: [{ left_nano_usd: limit }] } });
    const ask = (headers: Readonly<Record<string, string>>) =>
      fetch(`${baseUrl}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      });
    const first = await ask({ 'x-sift-budget': 'agent' });
    const cost = Number(first.headers.get('x-sift-cost-nano-usd'));
    expect([first.status, cost > 0]).toEqual([200, true]);
    const refused = await ask({ 'x-sift-budget': 'agent' });
    expect(refused.status).toBe(402);
    expect((await refused.json()).error).toMatchObject({
      code: 'budget_exhausted',
      details: { budget: { name: 'agent', window: 'month', left_nano_usd: limit - cost } },
    });
    const cut = await ask({ 'x-sift-budget': 'agent', 'x-sift-budget-mode': 'trim' });
    expect(cut.status).toBe(200);
    expect(Number(cut.headers.get('x-sift-max-tokens'))).toBeLessThan(100);
    const missing = await send(edgeOf(), 'GET', '/v1/budgets/agnet', { key });
    expect(missing.json.error.message).toContain("The nearest one is 'agent'.");
    const own = await send(edgeOf(), 'GET', '/v1/key', { key });
    expect(own.json).toMatchObject({ models: null, budget: null, weight: 1 });
  });
}

function describeLeases(edgeOf: () => RunningEdge, operatorOf: () => Operator): void {
  test('a long answer ends with the money, and nothing stays held', async () => {
    const { model, stub, baseUrl } = edgeOf();
    const words = Array.from({ length: 400 }, (_, index) => `w${index} `);
    stub.script = { ...plainScript, words, promptTokens, cachedTokens: 0 };
    const operator = operatorOf();
    const key = await operator.addTenant('leased', 1);
    const body = { model, messages, max_tokens: 2_000 };
    const quoted = await send(edgeOf(), 'POST', '/v1/quote', { key, body });
    const nanoUsd = (prompt: number, output: number) =>
      (prompt * seedPrice.inputUncached + output * seedPrice.output) / 1e6;
    const amount = nanoUsd(quoted.json.prompt_tokens_max, leaseTokens);
    const credit = { kind: 'granted', amount_nano_usd: amount, source: 'more' };
    await operator.call('POST', '/tenants/leased/credits', credit);
    const stream = { stream: true, stream_options: { include_usage: true } };
    const response = await fetch(`${baseUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, ...stream }),
    });
    const events = dataOf(await response.text());
    stub.script = plainScript;
    expect(events.at(-1)).toBe('[DONE]');
    const { usage } = JSON.parse(events.at(-2) ?? '');
    const tokens = Math.floor((amount + 1 - nanoUsd(promptTokens, 0)) / nanoUsd(0, 1));
    expect(usage).toMatchObject({
      completion_tokens: tokens,
      cost_nano_usd: nanoUsd(promptTokens, tokens),
      stopped_by: 'insufficient_balance',
    });
    const shown = await operator.call('GET', '/tenants/leased');
    expect(shown).toMatchObject({
      balance: {
        granted_nano_usd: amount + 1 - usage.cost_nano_usd,
        held_nano_usd: 0,
      },
    });
  });
}
