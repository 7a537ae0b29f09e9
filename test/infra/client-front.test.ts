import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { listenInFront } from '../../infra/client-front.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

/** Stands behind the front: takes half-closed connections for open ones, as workerd does. */
async function start() {
  const sockets: Socket[] = [];
  const ends: string[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('data', (bytes) => void socket.write(`heard ${bytes.toString()}`));
    socket.on('end', () => void ends.push('closed politely'));
    socket.on('error', (error: NodeJS.ErrnoException) => void ends.push(error.code ?? ''));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  closers.push(() => server.close());
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  const behind = { host: '127.0.0.1', port };
  const front = await listenInFront({ host: '127.0.0.1', port: 0, behind });
  closers.push(() => front.close());
  const client = connect(front.port, '127.0.0.1');
  closers.push(() => client.destroy());
  const heard: string[] = [];
  client.on('data', (bytes) => void heard.push(bytes.toString()));
  client.write('hello');
  await expect.poll(() => heard.join('')).toBe('heard hello');
  return { client, sockets, ends, port };
}

test.each(['end', 'destroy', 'resetAndDestroy'] as const)(
  'a client that leaves (%s) resets the connection behind at once',
  async (leave) => {
    const { client, sockets, ends } = await start();
    client[leave]();
    await expect.poll(() => sockets[0]?.destroyed).toBe(true);
    expect(ends).toEqual(['ECONNRESET']);
  },
);

test('a server that ends its connection ends that of its client, after the last byte', async () => {
  const { client, sockets } = await start();
  const heard: Buffer[] = [];
  client.on('data', (bytes) => void heard.push(bytes));
  const bytes = Buffer.alloc(3_000_000, 'x');
  sockets[0]?.end(bytes);
  await once(client, 'close');
  expect(Buffer.concat(heard).equals(bytes)).toBe(true);
});

test('a port that is taken is said to be, with what to do', async () => {
  const { port } = await start();
  const taken = { host: '127.0.0.1', port };
  await expect(listenInFront({ ...taken, behind: taken })).rejects.toThrow(
    `port ${port} on 127.0.0.1 is in use; set PORT or EDGE_HOST to another one`,
  );
});
