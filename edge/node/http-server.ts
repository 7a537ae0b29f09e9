/** The HTTP server of the edge on Node: how it begins to listen, and how it ends. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { Server as TcpServer, Socket } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { UserError } from '../../infra/user-error.ts';
import type { NodeSettings } from '../settings/read-settings.ts';
import { boundConnections, lingering, serverOptions } from './connections.ts';

const idleCheckMs = 50;
/**
 * Connections that the system has and the process has not taken yet; Node's 511 are fewer than come
 * in a rush.
 */
const connectionsWaitingMax = 4_096;

type Handler = Parameters<typeof createAdaptorServer>[0]['fetch'];

/** The place where a server listens. */
interface Address {
  readonly host: string;
  readonly port: number;
}

/**
 * @param threads that listen there, each with a server of its own.
 * @throws UserError if the port or the address cannot be had.
 */
export async function listen(
  handler: Handler,
  {
    port,
    host,
    bodyBytesMax,
    threads,
  }: Pick<NodeSettings, 'port' | 'host' | 'bodyBytesMax' | 'threads'>,
): Promise<Server> {
  // Without TLS options it is always a plain HTTP server.
  const server = createAdaptorServer({
    fetch: handler,
    serverOptions,
    autoCleanupIncoming: false,
  }) as Server;
  boundConnections(server, { ...lingering, bytesMax: 2 * bodyBytesMax, threads });
  // Longer than a client or proxy keeps a connection for reuse, so that none is closed under it.
  server.keepAliveTimeout = 75_000;
  await listening(server, { host, port, reusePort: threads > 1 });
  return server;
}

/**
 * Finds the port that several sockets are going to share, while nobody has a socket there.
 * @throws UserError as `listen` does.
 */
export async function freePort(address: Address): Promise<number> {
  const server = createTcpServer();
  await listening(server, { ...address, reusePort: false });
  const port = portOf(server);
  await new Promise((resolveClosed) => server.close(resolveClosed));
  return port;
}

function listening(
  server: TcpServer,
  at: Address & { readonly reusePort: boolean },
): Promise<void> {
  return new Promise((resolveListening, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, at)));
    server.listen({ ...at, backlog: connectionsWaitingMax }, resolveListening);
  });
}

/** Explains why a server does not listen there, and what to do. */
export function listenError(error: NodeJS.ErrnoException, at: Address): UserError {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'is in use',
    EACCES: 'needs more rights',
    EADDRNOTAVAIL: 'is no address of this machine',
  };
  if (error.code === 'ENOTSUP') {
    const message = 'this system does not divide a port among threads; set EDGE_THREADS to 1';
    return new UserError(message, { cause: error });
  }
  const reason = reasons[error.code ?? ''] ?? `cannot be listened on (${error.message})`;
  const advice = 'set PORT or EDGE_HOST to another one';
  return new UserError(`port ${at.port} on ${at.host} ${reason}; ${advice}`, { cause: error });
}

/**
 * Follows which connections have no request under way, and closes those. Node's own
 * `closeIdleConnections` passes over those that clients opened ahead of their first request, and
 * would wait for them.
 */
export function closesUnused(server: Server): () => void {
  const unused = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', ({ socket }: IncomingMessage, res: ServerResponse) => {
    unused.delete(socket);
    res.once('close', () => {
      if (!socket.destroyed) unused.add(socket);
    });
  });
  return () => unused.forEach((socket) => socket.destroy());
}

/** Takes no new clients, and waits for the requests under way. */
export async function stopServing(server: Server, closeUnused: () => void): Promise<void> {
  const stopped = new Promise((resolveStopped) => server.close(resolveStopped));
  // A client keeps the connection of its last answer, which would keep the server.
  const idle = setInterval(closeUnused, idleCheckMs);
  await stopped;
  clearInterval(idle);
}

/** The port on which the server listens. */
export function portOf(server: TcpServer): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

export function urlOf({ host, port }: Address): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
