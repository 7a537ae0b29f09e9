/** Puts the app on a port, and takes it off again without breaking the answers under way. */
import { createAdaptorServer } from '@hono/node-server';
import type { Hono } from 'hono';
import { strict as assert } from 'node:assert';
import { Server } from 'node:http';
import { isIP } from 'node:net';
import type { AppEnv } from './worker-services.ts';
import { UserError } from '../../infra/user-error.ts';

/** A connection without a request is noticed so soon while the server closes. */
const sweepMs = 50;

export interface ListenOptions {
  readonly app: Hono<AppEnv>;
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** The app's own; without one only loopback is listened on. */
  readonly token: string | null;
}

export interface RunningServer {
  readonly url: string;
  readonly port: number;
  /** Takes no new connections, waits for open answers, and cuts those that take longer. */
  close(options: { graceMs: number }): Promise<void>;
}

/** A start that can't succeed; its message is all that the user needs to see. */
export class ListenError extends UserError {
  override name = 'ListenError';
}

/** @throws ListenError with one clear line. */
export async function listen({ app, host, port, token }: ListenOptions): Promise<RunningServer> {
  if (token === null && !isLoopback(host)) {
    throw new ListenError(
      `set WORKER_TOKEN to listen on ${host}: without a token only loopback is safe`,
    );
  }
  const server = createAdaptorServer({ fetch: app.fetch });
  assert(server instanceof Server, 'the adaptor makes an HTTP/1.1 server unless told otherwise');
  // An answer may take hours to stream; only the request itself has to arrive in time.
  server.requestTimeout = 120_000;
  server.headersTimeout = 20_000;
  // Longer than clients keep theirs, so that no request meets a connection that is being closed.
  server.keepAliveTimeout = 75_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(toListenError(error, host, port)),
    );
    server.listen(port, host, resolve);
  });
  const address = server.address();
  assert(address !== null && typeof address === 'object', 'a listening TCP server has an address');
  const name = host.includes(':') ? `[${host}]` : host;
  return {
    url: `http://${name}:${address.port}`,
    port: address.port,
    close: ({ graceMs }) => closeServer(server, graceMs),
  };
}

function closeServer(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), graceMs);
    // A connection that is kept alive after its last answer would hold the server open.
    const sweep = setInterval(() => server.closeIdleConnections(), sweepMs);
    server.close(() => {
      clearTimeout(cut);
      clearInterval(sweep);
      resolve();
    });
  });
}

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}

function toListenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  switch (error.code) {
    case 'EADDRINUSE':
      return new ListenError(`port ${port} on ${host} is in use; set WORKER_PORT to another one`);
    case 'EACCES':
      return new ListenError(
        `port ${port} on ${host} needs more rights; set WORKER_PORT to another one`,
      );
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new ListenError(`this machine has no address ${host}`);
    default:
      return error;
  }
}
