/** Webhooks of an edge on Node: sent by themselves, and after whatever ended the process. */
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openTenantFile } from '../../../db/drivers/tenant-file.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { startReceiver, verified } from '../../support/edge/webhook-receiver.ts';

const token = 'admin-token-of-the-tests';

async function startIn(folder: string) {
  const env = { EDGE_ADMIN_TOKEN: token, EDGE_WEBHOOK_HOSTS: '127.0.0.1' };
  const edge = await startNode(folder, { env });
  onTestFinished(() => edge.close());
  const call = async (method: string, path: string, body: object) => {
    const answer = await fetch(`${edge.url}/admin${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    expect(answer.ok, await answer.clone().text()).toBe(true);
    return answer.json();
  };
  const topUp = (source: string) =>
    call('POST', '/tenants/acme/credits', {
      kind: 'topped-up',
      amount_nano_usd: 5_000_000,
      source,
    });
  return { edge, call, topUp };
}

function newFolder(): string {
  const folder = testFolder();
  onTestFinished(folder.remove);
  return folder.path;
}

async function receive(...answer: Parameters<typeof startReceiver>) {
  const receiver = await startReceiver(...answer);
  onTestFinished(() => receiver.close());
  return receiver;
}

test('a top-up is told at once, and what fails is tried again by itself', async () => {
  const { call, topUp } = await startIn(newFolder());
  const receiver = await receive((response, index) =>
    response.writeHead(index === 0 ? 500 : 204).end(),
  );
  await call('POST', '/tenants', { id: 'acme' });
  const hook = { url: receiver.url, events: ['top_up.received'] };
  const { secret } = await call('POST', '/tenants/acme/webhooks', hook);
  await topUp('one');
  await expect.poll(() => receiver.received.length).toBe(2);
  const [first, second] = receiver.received;
  expect(first?.headers['webhook-id']).toBe(second?.headers['webhook-id']);
  expect(second && verified(secret, second)).toMatchObject({ type: 'top_up.received' });
});

test('an edge that ends while a receiver is slow delivers after its next start', async () => {
  const folder = newFolder();
  const receiver = await receive((response, index) => {
    if (index > 0) response.writeHead(204).end();
  });
  const first = await startIn(folder);
  await first.call('POST', '/tenants', { id: 'acme' });
  const hook = { url: receiver.url, events: ['top_up.received'] };
  await first.call('POST', '/tenants/acme/webhooks', hook);
  await first.topUp('one');
  await expect.poll(() => receiver.received.length).toBe(1);
  await first.edge.close();
  await startIn(folder);
  await expect.poll(() => receiver.received.length).toBe(2);
  const [before, after] = receiver.received;
  expect(after?.headers['webhook-id']).toBe(before?.headers['webhook-id']);
});

test('an event whose process died before it was sent is sent by the next one', async () => {
  const folder = newFolder();
  const receiver = await receive();
  const first = await startIn(folder);
  await first.call('POST', '/tenants', { id: 'acme' });
  const hook = { url: receiver.url, events: ['top_up.received'] };
  await first.call('POST', '/tenants/acme/webhooks', hook);
  await first.edge.close();
  // The transaction is on the disk, and nobody is there who would send.
  const file = openTenantFile(join(folder, 'tenants', 'acme.db'), 'acme');
  const tenant = createTenant(file.db, { clock: { nowMs: () => Date.now() } });
  await tenant.credit({ kind: 'topped-up', amountNanoUsd: 7, source: 'pay', note: '' });
  file.close();
  expect(receiver.received).toEqual([]);
  await startIn(folder);
  await expect.poll(() => receiver.received.length).toBe(1);
});
