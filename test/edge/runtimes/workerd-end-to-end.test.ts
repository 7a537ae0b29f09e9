import { execFileSync } from 'node:child_process';
import { afterAll, expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { testFolder } from '../../support/edge/runtime-node.ts';
import { operatorOf } from '../../support/edge/seed.ts';
import { startWorkerd, testSecrets } from '../../support/edge/runtime-workerd.ts';
import type { WorkerdEdge } from '../../../infra/workerd-edge.ts';
import { describeEndToEnd } from './end-to-end.ts';
import type { RunningEdge } from './end-to-end.ts';
import { describeCutConnections } from './cut-connections.ts';
import { describeLeavingWholeAnswers, leaveSilence, seededEdge } from './end-to-end-runtimes.ts';

// Starting workerd takes seconds, so what follows the suite asks the same edge.
const folder = testFolder();
let home: WorkerdEdge;
let edge: RunningEdge;
afterAll(async () => {
  await edge?.close();
  folder.remove();
});

describeEndToEnd('the edge in workerd', async () => {
  home = await startWorkerd({ folder: folder.path });
  edge = await seededEdge({
    url: home.url,
    adminToken: testSecrets.EDGE_ADMIN_TOKEN,
    workerToken: testSecrets.WORKER_TOKEN,
    close: () => home.close(),
  });
  return { ...edge, close: async () => {} };
});

test('a client that leaves while the worker is silent is noticed', async () => {
  await leaveSilence(edge);
});

describeLeavingWholeAnswers(() => edge);

describeCutConnections(() => edge);

test("a terminal's Ctrl-C, which reaches workerd as well, cuts no answer short", async () => {
  edge.stub.script = { ...plainScript, pauseMs: 50 };
  const answer = await ask(home.url, edge, { stream: true });
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
  const operator = operatorOf(home.url, testSecrets.EDGE_ADMIN_TOKEN);
  const before = await operator.call('GET', '/tenants/acme');
  await home.close();
  home = await startWorkerd({ folder: folder.path });
  const again = operatorOf(home.url, testSecrets.EDGE_ADMIN_TOKEN);
  expect(await again.call('GET', '/tenants/acme')).toEqual(before);
  edge.stub.script = plainScript;
  const answer = await ask(home.url, edge);
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
