import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener, Server } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { createNodePost } from '../../../edge/node/node-post.ts';
import { piecesOf, postBy } from '../../../edge/relay/post.ts';
import type { PostedAnswer, PostRequest } from '../../../edge/relay/post.ts';

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

async function textOf({ body }: PostedAnswer): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const piece of piecesOf(body)) text += decoder.decode(piece, { stream: true });
  return text;
}

const subjects = { undici: createNodePost(), fetch: postBy(fetch) };

describe.each(['undici', 'fetch'] as const)('posting by %s', (subject) => {
  const post = (url: URL, request: Partial<PostRequest> = {}) =>
    subjects[subject](url, {
      headers: {},
      body: '{"ü":1}',
      signal: new AbortController().signal,
      ...request,
    });

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
    const answer = await post(url, { headers: { 'x-request-id': 'r1' } });
    expect(answer.status).toBe(503);
    expect([answer.header('retry-after'), answer.header('x-none')]).toEqual(['7', null]);
    expect(await textOf(answer)).toBe('POST /v1/chat r1 8 {"ü":1}');
  });

  test('bytes are posted as they are', async () => {
    const url = await serve((req, res) => void req.pipe(res));
    const answer = await post(url, { body: new Uint8Array([200, 0, 201]) });
    expect([...((await answer.body.read()) ?? [])]).toEqual([200, 0, 201]);
    expect(await answer.body.read()).toBe(null);
  });

  test('requests one after the other share connections', async () => {
    let connections = 0;
    const url = await serve((_, res) => void res.end('whole'));
    server?.on('connection', () => connections++);
    for (let count = 0; count < 10; count++) expect(await textOf(await post(url))).toBe('whole');
    // A connection is free again in the turn of the event loop after its answer.
    expect(connections).toBeLessThanOrEqual(2);
  });

  test('a redirect is an answer', async () => {
    const url = await serve((_, res) => void res.writeHead(302, { location: '/else' }).end());
    expect((await post(url)).status).toBe(302);
  });

  test('an answer without a body is over', async () => {
    const url = await serve((_, res) => void res.writeHead(204).end());
    const answer = await post(url);
    expect([answer.status, await answer.body.read()]).toEqual([204, null]);
  });

  test('an answer that another one announces is the answer', async () => {
    const url = await serve((_, res) => {
      res.writeProcessing();
      res.writeEarlyHints({ link: '</style.css>; rel=preload' });
      res.end('whole');
    });
    const answer = await post(url);
    expect([answer.status, await textOf(answer)]).toEqual([200, 'whole']);
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
    const { body } = await post(url);
    let bytes = (await body.read())?.length ?? 0;
    expect(whole).toBe(false);
    for (let read = await body.read(); read !== null; read = await body.read()) {
      bytes += read.length;
    }
    expect(bytes).toBe(piece.length * pieces);
  });

  test('nobody to answer is an error', async () => {
    const url = await serve((_, res) => void res.end());
    server?.close();
    await expect(post(url)).rejects.toThrow(/ECONNREFUSED|fetch failed/);
  });

  test('a connection that breaks in the middle of an answer breaks the body', async () => {
    const url = await serve((_, res) => {
      res.write('some');
      setImmediate(() => res.destroy());
    });
    await expect(post(url).then(textOf)).rejects.toThrow(/terminated|closed/);
  });

  test.each([
    ['closes without an answer', ''],
    ['answers what is no HTTP', 'SSH-2.0-OpenSSH\r\n'],
    ['changes the protocol', 'HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'],
  ])('a server that %s is an error', async (_, answer) => {
    const url = await listen(
      createTcpServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => void socket.end(answer));
      }),
    );
    await expect(post(url)).rejects.toThrow(Error);
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
      if (by === 'cancel') body.cancel();
      else stop.abort();
      await expect(closed.promise).resolves.toBe(undefined);
    },
  );

  test('a read that waits gets the end when the body is let go', async () => {
    const url = await serve((_, res) => void res.write('some'));
    const { body } = await post(url);
    await body.read();
    const waiting = body.read();
    body.cancel();
    expect([await waiting, await body.read()]).toEqual([null, null]);
  });

  test('a body that is left as its last piece is read does nothing more', async () => {
    const sent = Promise.withResolvers<void>();
    const url = await serve((_, res) => void res.end('whole', () => sent.resolve()));
    const failed: unknown[] = [];
    const fail = (error: unknown): void => void failed.push(error);
    process.on('uncaughtException', fail);
    for (let count = 0; count < 20; count++) {
      const { body } = await post(url);
      await sent.promise;
      // All of it is here by then, so that the last read and its end come in one turn.
      await new Promise((resolve) => setTimeout(resolve, 5));
      await body.read();
      body.cancel();
      await new Promise((resolve) => setImmediate(resolve));
    }
    process.off('uncaughtException', fail);
    expect(failed).toEqual([]);
  });
});
