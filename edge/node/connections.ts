/**
 * Bounds what one connection may cost the edge on Node: how many there are, how much of a body
 * waits in them unread, and what becomes of a body whose answer was given before its end.
 */
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http';

const connectionsMax = 16_384;

/** A body that nobody reads yet waits at its sender, but for this much of it. */
export const serverOptions: ServerOptions = { highWaterMark: 16 * 1024 };

/**
 * Closing a connection on which a client still sends resets it, and the client may lose the answer
 * that says why. So the rest of its body is taken off the wire, within these bounds.
 */
export interface Lingering {
  readonly bytesMax: number;
  readonly msMax: number;
  /** A client that sends nothing for this long has stopped, and waits for its own reasons. */
  readonly quietMs: number;
}

export const lingering = { msMax: 30_000, quietMs: 2_000 };

/** @param bounds `threads` divide the connections among them. */
export function boundConnections(
  server: Server,
  bounds: Lingering & { readonly threads: number },
): void {
  server.maxConnections = Math.ceil(connectionsMax / bounds.threads);
  server.on('request', (req: IncomingMessage, res: ServerResponse) => {
    res.once('finish', () => {
      if (!req.complete) linger(req, bounds);
    });
  });
  // Such a client sends its body once it is asked to. If it is not, what it sends next is unclear.
  server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
    res.setHeader('connection', 'close');
    server.emit('request', req, res);
  });
}

/**
 * Reads the rest of a body; if it ends in time, the connection goes on with the client's next
 * request.
 */
function linger(req: IncomingMessage, { bytesMax, msMax, quietMs }: Lingering): void {
  const { socket } = req;
  let bytes = 0;
  let bytesBefore = 0;
  const over = (): void => {
    clearTimeout(late);
    clearInterval(quiet);
    req.off('data', count).off('end', over).off('close', over);
  };
  const close = (): void => {
    over();
    socket.destroySoon();
  };
  const count = (piece: Uint8Array): void => {
    bytes += piece.length;
    if (bytes > bytesMax) close();
  };
  const late = setTimeout(close, msMax);
  const quiet = setInterval(() => {
    if (bytes === bytesBefore) close();
    bytesBefore = bytes;
  }, quietMs);
  req.on('data', count).once('end', over).once('close', over);
  req.resume();
}
