/**
 * A TCP front for workerd. A client that leaves only closes its side of the connection, which
 * workerd takes for a client that has said everything and still listens: it notices at its next
 * write. So the front, which takes a closed side for leaving, as Node's own server does, resets the
 * connection behind. On Cloudflare the flag enable_request_signal is there for that.
 */
import { createServer, connect } from 'node:net';
import type { Server, Socket } from 'node:net';
import { listenError } from '../edge/node/http-server.ts';

/** Listens, and passes bytes both ways. @throws UserError when it cannot listen. */
export async function listenInFront(options: {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly behind: { readonly host: string; readonly port: number };
}): Promise<{ readonly port: number; close(): Promise<void> }> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    const behind = connect({ ...options.behind, noDelay: true });
    join(client, behind);
    open.add(client);
    client.once('close', () => open.delete(client));
  });
  const port = await listen(server, options);
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const client of open) client.destroy();
      }),
  };
}

function join(client: Socket, behind: Socket): void {
  client.pipe(behind, { end: false });
  behind.pipe(client);
  // An error closes its socket, and either one that closes takes the other along.
  client.once('end', () => behind.resetAndDestroy());
  client.once('close', () => behind.resetAndDestroy());
  behind.once('close', () => client.destroySoon());
  client.on('error', () => {});
  behind.on('error', () => {});
}

function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, { host, port })));
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : port);
    });
  });
}
