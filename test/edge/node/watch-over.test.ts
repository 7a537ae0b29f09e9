/** Programs that watch over an edge on Node read its metrics and whether it is ready. */
import Database from 'better-sqlite3';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runtimeSecrets, startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import type { RuntimeSystem } from '../../support/edge/runtime-system.ts';
import { seedModel } from '../../support/edge/seed.ts';

const operator = { authorization: `Bearer ${runtimeSecrets.EDGE_ADMIN_TOKEN}` };

async function metricsOf(system: RuntimeSystem): Promise<ReadonlyMap<string, number>> {
  const answer = await fetch(`${system.edge().url}/metrics`, { headers: operator });
  expect(answer.status).toBe(200);
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const lines = (await answer.text()).split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}

const model = `model="${seedModel}"`;

test('metrics count what the ledgers and the fleet know', async () => {
  const system = await startRuntimeSystem();
  const costs: number[] = [];
  for (const content of ['One.', 'Two.', 'Three.']) {
    const answer = await system.ask('acme', { messages: [{ role: 'user', content }] });
    costs.push(Number(answer.headers.get('x-sift-cost-nano-usd')));
  }
  await (await system.ask('acme', { stream: true })).text();
  const refused = await fetch(`${system.edge().url}/v1/chat/completions`, { method: 'POST' });
  expect(refused.status).toBe(401);
  const found = await metricsOf(system);
  const route = 'route="/v1/chat/completions"';
  const requests = (rest: string) => found.get(`sift_edge_requests_total{${route},${rest}}`);
  expect(requests(`${model},status="200",code=""`)).toBe(4);
  expect(requests(`model="",status="401",code="invalid_api_key"`)).toBe(1);
  expect(found.get(`sift_edge_answers_total{${model},outcome="done"}`)).toBe(4);
  expect(found.get(`sift_edge_time_to_first_token_seconds_count{${model}}`)).toBe(4);
  expect(found.get(`sift_edge_queue_seconds_count{${model}}`)).toBe(4);
  expect(found.get('sift_edge_workers{state="ready"}')).toBe(1);
  expect(found.get('sift_edge_requests_waiting')).toBe(0);

  const money = (kind: string) =>
    found.get(`sift_edge_nano_usd_total{${model},kind="${kind}"}`) ?? Number.NaN;
  expect(money('settled')).toBeGreaterThan(costs.reduce((sum, each) => sum + each, 0));
  expect(money('held')).toBe(money('settled') + money('refunded'));
  const { total } = await system.audit();
  expect(total.granted_nano_usd).toBe(2_000_000_000 - money('settled'));
  expect(total.held_nano_usd).toBe(0);
});

test('metrics count all that was held of an answer that outgrew its first hold', async () => {
  const system = await startRuntimeSystem({ env: { EDGE_LEASE_TOKENS: '8' } });
  // The first hold covers the prompt by its bytes, so that the answer is made of many tokens.
  const words = Array.from({ length: 2_000 }, (_, index) => `w${index} `);
  system.stub.script = { ...system.stub.script, words };
  await (await system.ask('acme', { max_tokens: 5_000 })).text();
  await (await system.ask('acme', { max_tokens: 5_000, stream: true })).text();
  const money = async (kind: string) =>
    (await metricsOf(system)).get(`sift_edge_nano_usd_total{${model},kind="${kind}"}`) ??
    Number.NaN;
  await expect.poll(() => money('settled')).toBeGreaterThan(2 * 2_000 * 420);
  expect(await money('held')).toBe((await money('settled')) + (await money('refunded')));
  const found = await metricsOf(system);
  expect(found.get(`sift_edge_answers_total{${model},outcome="done"}`)).toBe(2);
});

test('an edge is ready while its records can be written and a worker takes requests', async () => {
  const system = await startRuntimeSystem();
  const ready = async () => {
    const answer = await fetch(`${system.edge().url}/ready`);
    return { code: answer.status, ...(await answer.json()) };
  };
  expect(await ready()).toMatchObject({ code: 200, status: 'ready' });
  const other = new Database(join(system.folder, 'directory.db'));
  other.exec('BEGIN IMMEDIATE');
  await expect.poll(ready).toMatchObject({
    code: 503,
    status: 'not-ready',
    checks: { records: 'cannot be written', workers: 'ok' },
  });
  other.exec('ROLLBACK');
  other.close();
  await expect.poll(ready).toMatchObject({ status: 'ready' });
});
