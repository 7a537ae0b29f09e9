/** Bytes straight to a port, for requests that no client would send. */
import { connect } from 'node:net';

const answerMsMax = 10_000;
const answerBytesMax = 2 ** 20;

export interface RawAnswer {
  /** The statuses of every response on the connection, in order. */
  readonly statuses: readonly number[];
  readonly text: string;
  /** The server closed the connection; otherwise it was left open until the time was up. */
  readonly isClosed: boolean;
}

/**
 * Sends the bytes, then reads until the server closes or is silent for as long as `silentMs`.
 * Lines of a head end in `\r\n`, which the caller writes.
 */
export function sendRaw(
  url: string,
  bytes: string | Uint8Array,
  silentMs = 1_000,
): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    let text = '';
    const end = (isClosed: boolean): void => {
      clearTimeout(late);
      socket.destroy();
      const statuses = [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) =>
        Number(status),
      );
      resolve({ statuses, text, isClosed });
    };
    const late = setTimeout(() => end(false), answerMsMax);
    socket.setTimeout(silentMs, () => end(false));
    socket.on('data', (piece) => {
      text += piece.toString('latin1');
      if (text.length > answerBytesMax) end(false);
    });
    // A reset is an answer too: the server wants no more of this.
    socket.on('error', () => end(true));
    socket.on('close', () => end(true));
    socket.write(bytes);
  });
}
