import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener, Server } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { createNodeFetch } from '../../../edge/node/node-fetch.ts';

const nodeFetch = createNodeFetch();
let server: Server | TcpServer | undefined;
afterEach(() => {
  server?.close();
  if (server && 'closeAllConnections' in server) server.closeAllConnections();
});

async function listen(on: Server | TcpServer): Promise<URL> {
  server = on.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  return new URL(`http://127.0.0.1:${port}/v1/chat`);
}
const serve = (listener: RequestListener) => listen(createServer(listener));
const post = (url: URL, init: RequestInit = {}) =>
  nodeFetch(url, { method: 'POST', redirect: 'manual', body: '{"ü":1}', ...init });

test('what is posted arrives, and the answer comes back with status and headers', async () => {
  const url = await serve((req, res) => {
    let text = '';
    req.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    req.on('end', () => {
      const { 'x-request-id': id, 'content-length': length } = req.headers;
      res.writeHead(503, { 'retry-after': '7' });
      res.end(`${req.method} ${req.url} ${id} ${length} ${text}`);
    });
  });
  const response = await post(url, { headers: { 'x-request-id': 'r1' } });
  expect(response.status).toBe(503);
  expect(response.headers.get('retry-after')).toBe('7');
  expect(await response.text()).toBe('POST /v1/chat r1 8 {"ü":1}');
});

test('requests one after the other share a connection', async () => {
  let connections = 0;
  const url = await serve((_, res) => void res.end('whole'));
  server?.on('connection', () => connections++);
  for (let count = 0; count < 5; count++) expect(await (await post(url)).text()).toBe('whole');
  expect(connections).toBe(1);
});

test('a redirect is an answer', async () => {
  const url = await serve((_, res) => void res.writeHead(302, { location: '/else' }).end());
  expect((await post(url)).status).toBe(302);
});

test('an answer without a body has none', async () => {
  const url = await serve((_, res) => void res.writeHead(204).end());
  const response = await post(url);
  expect([response.status, response.body]).toEqual([204, null]);
});

test('an answer is given piece by piece, and its sender waits for the reader', async () => {
  const piece = Buffer.alloc(64 * 1024);
  const pieces = 1_024;
  let sent = 0;
  let whole = false;
  const url = await serve((_, res) => {
    const send = (): void => {
      while (sent < pieces) {
        sent++;
        if (!res.write(piece)) return void res.once('drain', send);
      }
      whole = true;
      res.end();
    };
    send();
  });
  const reader = (await post(url)).body?.getReader();
  let bytes = (await reader?.read())?.value?.length ?? 0;
  expect(whole).toBe(false);
  for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) {
    bytes += read.value.length;
  }
  expect(bytes).toBe(piece.length * pieces);
});

test('nobody to answer is an error', async () => {
  const url = await serve((_, res) => void res.end());
  server?.close();
  await expect(post(url)).rejects.toThrow('ECONNREFUSED');
});

test('a connection that breaks in the middle of an answer breaks the body', async () => {
  const url = await serve((_, res) => {
    res.write('some');
    setImmediate(() => res.destroy());
  });
  await expect(post(url).then((response) => response.text())).rejects.toThrow('aborted');
});

test.each([
  ['closes without an answer', '', 'socket hang up'],
  ['answers what is no HTTP', 'SSH-2.0-OpenSSH\r\n', 'Parse Error'],
  [
    'changes the protocol',
    'HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
    'its connection closed',
  ],
  [
    'answers with a status that is none',
    'HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n',
    'status 999',
  ],
])('a server that %s is an error', async (_, answer, message) => {
  const url = await listen(
    createTcpServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => void socket.end(answer));
    }),
  );
  await expect(post(url)).rejects.toThrow(message);
});

test('a signal ends a request that waits, with its reason, and lets go of the connection', async () => {
  const stop = new AbortController();
  const closed = Promise.withResolvers<void>();
  const url = await serve((_, res) => {
    res.once('close', closed.resolve);
    stop.abort(new Error('enough'));
  });
  await expect(post(url, { signal: stop.signal })).rejects.toThrow('enough');
  await closed.promise;
  await expect(post(url, { signal: stop.signal })).rejects.toThrow('enough');
});

test.each(['signal', 'cancel'] as const)(
  'a body that is left by %s stops its sender',
  async (by) => {
    const stop = new AbortController();
    const closed = Promise.withResolvers<void>();
    const url = await serve((_, res) => {
      res.once('close', closed.resolve);
      res.write('some');
    });
    const { body } = await post(url, { signal: stop.signal });
    if (by === 'cancel') await body?.cancel();
    else stop.abort();
    await expect(closed.promise).resolves.toBe(undefined);
  },
);

test('a body that is left as its last piece is read does nothing more', async () => {
  const sent = Promise.withResolvers<void>();
  const url = await serve((_, res) => void res.end('whole', () => sent.resolve()));
  const failed: unknown[] = [];
  const fail = (error: unknown): void => void failed.push(error);
  process.on('uncaughtException', fail);
  for (let count = 0; count < 20; count++) {
    const reader = (await post(url)).body?.getReader();
    await sent.promise;
    // All of it is here by then, so that the last read and its end come in one turn.
    await new Promise((resolve) => setTimeout(resolve, 5));
    await reader?.read();
    await reader?.cancel();
    await new Promise((resolve) => setImmediate(resolve));
  }
  process.off('uncaughtException', fail);
  expect(failed).toEqual([]);
});

test('what needs more of fetch is left to it', async () => {
  const url = await serve((req, res) => {
    if (req.url === '/else') res.end(`${req.method} followed`);
    else res.writeHead(303, { location: '/else' }).end();
  });
  const response = await nodeFetch(url, { method: 'POST', body: 'x' });
  expect(await response.text()).toBe('GET followed');
});
