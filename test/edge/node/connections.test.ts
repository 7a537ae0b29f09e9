/**
 * Bodies and their connections on Node: what a client sees that is refused while it still sends.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RunningEdge } from '../../../edge/node/node.ts';
import { operatorOf } from '../../support/edge/seed.ts';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';

const folder = testFolder();
let edge: RunningEdge;
let key: string;
beforeAll(async () => {
  edge = await startNode(folder.path);
  key = await operatorOf(edge.url, edge.services.settings.adminToken).addTenant('poor', 0);
});
afterAll(async () => {
  await edge.close();
  folder.remove();
});

const path = '/v1/chat/completions';
const head = (fields: Readonly<Record<string, string>>, target = path) =>
  `POST ${target} HTTP/1.1\r\nHost: edge.example\r\nAuthorization: Bearer ${key}\r\n` +
  `${Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;

interface Client {
  readonly socket: Socket;
  /** The text that has come so far. */
  readonly text: () => string;
  readonly closed: () => boolean;
  readonly failed: () => boolean;
}

async function open(): Promise<Client> {
  const { port, hostname } = new URL(edge.url);
  const socket = connect(Number(port), hostname);
  let text = '';
  let failed = false;
  socket.on('data', (piece) => (text += piece.toString('latin1')));
  socket.on('error', () => (failed = true));
  await new Promise((resolve) => socket.once('connect', resolve));
  return { socket, text: () => text, closed: () => socket.closed, failed: () => failed };
}

const answersOf = (client: Client): string[] => client.text().match(/HTTP\/1\.1 \d+/g) ?? [];

test('a refused client that goes on sending has its answer, and its connection serves the next request', async () => {
  const client = await open();
  const length = 4 * 1024 * 1024;
  client.socket.write(head({ 'Content-Length': String(length) }));
  await expect.poll(() => answersOf(client)).toEqual(['HTTP/1.1 402']);
  const piece = Buffer.alloc(64 * 1024, 0x20);
  for (let sent = 0; sent < length; sent += piece.length) {
    if (!client.socket.write(piece)) {
      await new Promise((resolve) => client.socket.once('drain', resolve));
    }
  }
  client.socket.write('GET /health HTTP/1.1\r\nHost: edge.example\r\n\r\n');
  await expect.poll(() => answersOf(client)).toEqual(['HTTP/1.1 402', 'HTTP/1.1 200']);
  expect(client.failed()).toBe(false);
  client.socket.destroy();
});

test('a refused client that sends no more has its answer, and its connection is closed', async () => {
  const client = await open();
  client.socket.write(head({ 'Content-Length': '4000000' }) + 'x'.repeat(1_000));
  await expect.poll(() => client.closed()).toBe(true);
  expect(answersOf(client)).toEqual(['HTTP/1.1 402']);
  expect(client.failed()).toBe(false);
});

test('a client that waits to be asked for its body is refused without it', async () => {
  const client = await open();
  client.socket.write(head({ 'Content-Length': '4000000', Expect: '100-continue' }));
  await expect.poll(() => client.closed()).toBe(true);
  expect(answersOf(client)).toEqual(['HTTP/1.1 402']);
});

test('a client that waits to be asked for its body is asked where it may send it', async () => {
  const client = await open();
  const body = JSON.stringify({ model: 'none', messages: [{ role: 'user', content: 'x' }] });
  const fields = { 'Content-Length': String(body.length), Expect: '100-continue' };
  client.socket.write(head(fields));
  await expect.poll(() => answersOf(client)).toEqual(['HTTP/1.1 100']);
  client.socket.write(body);
  await expect.poll(() => answersOf(client)).toEqual(['HTTP/1.1 100', 'HTTP/1.1 404']);
  client.socket.write('GET /health HTTP/1.1\r\nHost: edge.example\r\n\r\n');
  await expect.poll(() => answersOf(client).at(-1)).toBe('HTTP/1.1 200');
  client.socket.destroy();
});

test.each(['/payments/stripe/webhook', '/admin/tenants', '/internal/workers/heartbeat'])(
  '%s reads nothing of a body before it knows its caller',
  async (target) => {
    const client = await open();
    client.socket.write(head({ 'Content-Length': '60000', Expect: '100-continue' }, target));
    await expect.poll(() => client.closed()).toBe(true);
    expect(answersOf(client)).toHaveLength(1);
    expect(answersOf(client)[0]).toMatch(/ 40[0-9]$/);
  },
);

test('two Host headers are refused', async () => {
  const client = await open();
  client.socket.write('GET /health HTTP/1.1\r\nHost: a.example\r\nhost: b.example\r\n\r\n');
  await expect.poll(() => answersOf(client)).toEqual(['HTTP/1.1 400']);
  expect(client.text()).toContain('two_hosts');
  client.socket.destroy();
});

test('clients that leave in the middle of their bodies leave nothing of them', async () => {
  const rich = await operatorOf(edge.url, edge.services.settings.adminToken).addTenant(
    'rich',
    1_000_000_000,
  );
  const clients = await Promise.all(Array.from({ length: 8 }, open));
  for (const client of clients) {
    client.socket.write(
      head({ 'Content-Length': '4000000' }).replace(key, rich) + 'x'.repeat(100_000),
    );
  }
  await expect.poll(() => edge.services.bodies.bytes()).toBeGreaterThan(8_000_000);
  for (const client of clients) client.socket.destroy();
  await expect.poll(() => edge.services.bodies.bytes()).toBe(0);
});
