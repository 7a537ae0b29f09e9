import { execFileSync } from 'node:child_process';
import { afterAll, expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { testFolder } from '../../support/edge/runtime-node.ts';
import { operatorOf } from '../../support/edge/seed.ts';
import { startWorkerd, testSecrets } from '../../support/edge/runtime-workerd.ts';
import type { WorkerdEdge } from '../../../infra/workerd-edge.ts';
import { sendRaw } from '../../hostile/wire.ts';
import { describeEndToEnd } from './end-to-end.ts';
import type { RunningEdge } from './end-to-end.ts';
import { describeCutConnections } from './cut-connections.ts';
import { describeAliases } from './aliases.ts';
import { describeBudgets, leaseTokens } from './budgets.ts';
import { describeWatched } from './watched.ts';
import { describeKeyedStreams } from './keyed-streams.ts';
import { describeResponses } from './responses.ts';
import { describeLeavingWholeAnswers, leaveSilence, seededEdge } from './end-to-end-runtimes.ts';

// Starting workerd takes seconds, so what follows the suite asks the same edge.
const folder = testFolder();
let runtime: WorkerdEdge;
let edge: RunningEdge;
afterAll(async () => {
  await edge?.close();
  folder.remove();
});

describeEndToEnd('the edge in workerd', async () => {
  runtime = await startWorkerd({
    folder: folder.path,
    settings: { EDGE_LEASE_TOKENS: String(leaseTokens) },
  });
  edge = await seededEdge({
    url: runtime.url,
    adminToken: testSecrets.EDGE_ADMIN_TOKEN,
    workerToken: testSecrets.WORKER_TOKEN,
    close: () => runtime.close(),
  });
  return { ...edge, close: async () => {} };
});

test('a client that leaves while the worker is silent is noticed', async () => {
  await leaveSilence(edge);
});

describeLeavingWholeAnswers(() => edge);

describeCutConnections(() => edge);

describeResponses(() => edge);

describeKeyedStreams(() => edge);

describeWatched(() => edge);
describeAliases(
  () => edge,
  () => operatorOf(runtime.url, testSecrets.EDGE_ADMIN_TOKEN),
);

describeBudgets(
  () => edge,
  () => operatorOf(runtime.url, testSecrets.EDGE_ADMIN_TOKEN),
);

test.each([
  ['two hosts', ['host: a.example', 'host: b.example']],
  ['one host twice', ['host: a.example', 'HOST: a.example']],
  ['two hosts in one header', ['host: a.example, b.example']],
  ['a host and an empty one', ['host: a.example', 'host:']],
  ['no host', []],
])('a request with %s is refused by workerd itself', async (_, hosts) => {
  const body = JSON.stringify({
    model: edge.model,
    messages: [{ role: 'user', content: 'Hi.' }],
  });
  const head = [
    'POST /v1/chat/completions HTTP/1.1',
    ...hosts,
    `authorization: Bearer ${edge.apiKey}`,
    `content-length: ${body.length}`,
    'connection: close',
  ];
  const asked = edge.stub.requests.length;
  const { statuses } = await sendRaw(edge.baseUrl, `${head.join('\r\n')}\r\n\r\n${body}`);
  expect(statuses).toHaveLength(1);
  // It has no status of its own for two hosts: it makes no URL of them and says 500.
  expect([400, 500]).toContain(statuses[0]);
  expect(edge.stub.requests).toHaveLength(asked);
  expect(await (await ask(runtime.url, edge)).json()).toMatchObject({ object: 'chat.completion' });
});

test('a client that is refused while it is still sending reads why', async () => {
  for (const bytes of [2 * 2 ** 20, 9 * 2 ** 20]) {
    const answer = await fetch(`${edge.baseUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.apiKey}x`, connection: 'close' },
      body: Buffer.alloc(bytes, 0x20),
    });
    expect([answer.status, await answer.json()]).toMatchObject([
      401,
      { error: { code: 'invalid_api_key' } },
    ]);
  }
});

test("a terminal's Ctrl-C, which reaches workerd as well, cuts no answer short", async () => {
  edge.stub.script = { ...plainScript, pauseMs: 50 };
  const answer = await ask(runtime.url, edge, { stream: true });
  // Every process with its parent; workerd is a child of the one that started it.
  const processes = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,args='], { encoding: 'utf8' });
  const own = processes
    .split('\n')
    .map((line) => /^ *(\d+) +(\d+) (.*)$/.exec(line) ?? [])
    .filter(([, , parent, args]) => Number(parent) === process.pid && args?.includes('workerd'));
  expect(own).not.toEqual([]);
  for (const [, pid] of own) process.kill(Number(pid), 'SIGINT');
  expect(await answer.text()).toContain('[DONE]');
});

test('a second start finds tenants, balances, keys and prices again', async () => {
  const operator = operatorOf(runtime.url, testSecrets.EDGE_ADMIN_TOKEN);
  const before = await operator.call('GET', '/tenants/acme');
  await runtime.close();
  runtime = await startWorkerd({ folder: folder.path });
  const again = operatorOf(runtime.url, testSecrets.EDGE_ADMIN_TOKEN);
  expect(await again.call('GET', '/tenants/acme')).toEqual(before);
  edge.stub.script = plainScript;
  const answer = await ask(runtime.url, edge);
  expect(answer.status).toBe(200);
  expect(await again.call('GET', '/audit')).toMatchObject({ ok: true, findings: [] });
});

function ask(url: string, { apiKey, model }: RunningEdge, more: object = {}): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi.' }], ...more }),
  });
}
