/** The HTTP server of the edge on Node: how it begins to listen, and how it ends. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
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

/** @throws UserError if the port or the address cannot be had. */
export async function listen(
  handler: Handler,
  { port, host, bodyBytesMax }: Pick<NodeSettings, 'port' | 'host' | 'bodyBytesMax'>,
): Promise<Server> {
  return new Promise((resolveListening, reject) => {
    // Without TLS options it is always a plain HTTP server.
    const server = createAdaptorServer({
      fetch: handler,
      serverOptions,
      autoCleanupIncoming: false,
    }) as Server;
    boundConnections(server, { ...lingering, bytesMax: 2 * bodyBytesMax });
    // Longer than a client or proxy keeps a connection for reuse, so that none is closed under it.
    server.keepAliveTimeout = 75_000;
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(listenError(error, { host, port })),
    );
    server.listen({ port, host, backlog: connectionsWaitingMax }, () => resolveListening(server));
  });
}

/** Explains why a server does not listen there, and what to do. */
export function listenError(
  error: NodeJS.ErrnoException,
  at: { readonly host: string; readonly port: number },
): UserError {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'is in use',
    EACCES: 'needs more rights',
    EADDRNOTAVAIL: 'is no address of this machine',
  };
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

/** The address on which the server listens. */
export function urlOf(server: Server, host: string): string {
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
