/**
 * The body of a request, piece by piece. On Node it comes from the request itself, whose connection
 * outlives a reader that stops early: the answer still reaches the client. A web stream over it
 * would take the connection along.
 */
import type { IncomingMessage } from 'node:http';
import type { AppContext, AppEnv } from '../middleware/app-env.ts';

export interface BodyPieces {
  /** null: the end. Rejects when the client breaks off, and once it was stopped. */
  next(): Promise<Uint8Array | null>;
  /** Reads no more; the rest of the body stays unread. */
  stop(reason: Error): void;
}

export function bodyPieces(c: AppContext): BodyPieces {
  const { incoming } = nodeOf(c);
  return incoming === undefined ? piecesOfStream(c.req.raw.body) : piecesOfIncoming(incoming);
}

/**
 * Tells a client that waits for it to send its body; on Node's server such a client closes
 * otherwise.
 */
export function askForBody(c: AppContext): void {
  const { incoming, outgoing } = nodeOf(c);
  if (incoming?.headers.expect === undefined) return;
  outgoing?.writeContinue();
  outgoing?.removeHeader('connection');
}

function nodeOf(c: AppContext): AppEnv['Bindings'] {
  // A runtime other than Node may give the app no bindings at all.
  const bindings: AppEnv['Bindings'] | undefined = c.env;
  return bindings ?? {};
}

function piecesOfStream(body: ReadableStream<Uint8Array> | null): BodyPieces {
  const reader = body?.getReader();
  let stopped: Error | null = null;
  return {
    async next() {
      const piece = await reader?.read();
      if (stopped !== null) throw stopped;
      return piece?.value ?? null;
    },
    stop(reason) {
      stopped = reason;
      reader?.cancel().catch(() => {});
    },
  };
}

function piecesOfIncoming(incoming: IncomingMessage): BodyPieces {
  let stopped: Error | null = null;
  let wake = (): void => {};
  const onChange = (): void => wake();
  const events = ['readable', 'end', 'error', 'close'];
  for (const event of events) incoming.on(event, onChange);
  return {
    async next() {
      for (;;) {
        if (stopped !== null) throw stopped;
        const piece: Uint8Array | null = incoming.read();
        if (piece !== null) return piece;
        if (incoming.readableEnded) return null;
        if (incoming.destroyed) throw incoming.errored ?? new Error('its connection closed');
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    stop(reason) {
      stopped = reason;
      for (const event of events) incoming.off(event, onChange);
      wake();
    },
  };
}
