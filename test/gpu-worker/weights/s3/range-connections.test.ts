import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { RangeConnections } from '../../../../gpu-worker/weights/s3/range-connections.ts';

/**
 * Answers each request of a connection with the next of these pieces of text, cut where they are
 * cut.
 */
async function serve(
  ...answers: (readonly string[])[]
): Promise<{ port: number; opened: Socket[] }> {
  const opened: Socket[] = [];
  const server = createServer((socket) => {
    opened.push(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('data', async () => {
      for (const piece of answers.shift() ?? []) {
        if (piece === 'close') socket.end();
        else socket.write(piece);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of opened) socket.destroy();
    server.close();
  });
  // A server that listens on TCP has an address with a port.
  return { port: (server.address() as AddressInfo).port, opened };
}

async function get(connections: RangeConnections, port: number, bytes = 5) {
  const into = new Uint8Array(bytes);
  const hash = createHash('sha256');
  const answer = await connections.get(
    { secure: false, hostname: '127.0.0.1', port, path: '/', headers: { host: 'x' } },
    { into, hash, stallMs: 200, signal: new AbortController().signal },
  );
  return {
    ...answer,
    body: answer.body.toString(),
    into: Buffer.from(into).toString(),
    sha256: hash.digest('hex'),
  };
}

function connect(): RangeConnections {
  const connections = new RangeConnections();
  onTestFinished(() => connections.close());
  return connections;
}

const head = 'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n';

test('a range comes into its memory however it is cut, over one kept connection', async () => {
  const { port, opened } = await serve(
    [`${head}\r\nhello`],
    ['HTTP/1.1 2', `06 Partial Content\r\ncontent-LENGTH: 5\r`, '\n\r\nwo', 'rld'],
  );
  const connections = connect();
  expect(await get(connections, port)).toMatchObject({ status: 206, into: 'hello', body: '' });
  const sha256 = createHash('sha256').update('world').digest('hex');
  expect(await get(connections, port)).toMatchObject({ status: 206, into: 'world', sha256 });
  expect(opened).toHaveLength(1);
});

test('an error comes with its body, by length or in chunks, and the connection is kept', async () => {
  const { port, opened } = await serve(
    ['HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\n<no>'],
    [
      'HTTP/1.1 503 Slow\r\ntransfer-encoding: chunked\r\n\r\n3\r\n<sl',
      '\r\n4\r\now/>\r\n0\r\n',
      '\r\n',
    ],
    [`${head}\r\nhello`],
  );
  const connections = connect();
  expect(await get(connections, port)).toMatchObject({ status: 403, body: '<no>' });
  expect(await get(connections, port)).toMatchObject({ status: 503, body: '<slow/>' });
  expect(await get(connections, port)).toMatchObject({ status: 206, into: 'hello' });
  expect(opened).toHaveLength(1);
});

test.each<[string, readonly string[]]>([
  ['asks to be closed', [`${head}connection: close\r\n\r\nhello`]],
  ['brings more than was asked for', [`${head}\r\nhello, world`]],
])('a connection that %s is not used again', async (_, pieces) => {
  const { port, opened } = await serve(pieces, [`${head}\r\nagain`]);
  const connections = connect();
  expect(await get(connections, port)).toMatchObject({ into: 'hello' });
  expect(await get(connections, port)).toMatchObject({ into: 'again' });
  expect(opened).toHaveLength(2);
});

test('an answer that is not the range is told by its head, and its body not waited for', async () => {
  const { port } = await serve(['HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nwhole']);
  expect(await get(connect(), port)).toMatchObject({ status: 200, body: '' });
});

test.each<[string, readonly string[], string]>([
  ['breaks off', [`${head}\r\nhel`, 'close'], 'broke off after 3 of 5 bytes'],
  ['never begins', ['close'], 'closed before the answer was whole'],
  ['stalls', [`${head}\r\nhel`], 'next to nothing'],
  ['is not HTTP', ['SSH-2.0-OpenSSH\r\n\r\n'], 'not HTTP/1.1'],
  ['has an endless head', ['HTTP/1.1 206 OK\r\n', 'x: y\r\n'.repeat(20_000)], 'no end of its head'],
  ['has an error without an end', ['HTTP/1.1 500 No\r\n\r\nwhat\r\n'], 'body without an end'],
])('an answer that %s fails in words', async (_, pieces, message) => {
  const { port } = await serve(pieces);
  await expect(get(connect(), port)).rejects.toThrow(message);
});

test('a load that is given up ends its requests', async () => {
  const { port } = await serve([head]);
  const abort = new AbortController();
  const request = { secure: false, hostname: '127.0.0.1', port, path: '/', headers: {} };
  const hash = createHash('sha256');
  const options = { into: new Uint8Array(5), hash, stallMs: 60_000, signal: abort.signal };
  const pending = connect().get(request, options);
  abort.abort();
  await expect(pending).rejects.toThrow('given up');
});
