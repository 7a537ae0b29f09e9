/**
 * `fetch` for Node, with a short way to the workers: text or bytes that are posted go through
 * `node:http`, whose cost per request is a fraction of what Node's own fetch adds to it.
 * Connections are kept, an answer is read as it is asked for, and what does not fit is left to
 * Node's fetch.
 */
import { Agent as HttpAgent, request as requestHttp } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import type { Socket } from 'node:net';

/** Connections to one worker that are kept for later requests. */
const idleSocketsMax = 256;
/** Node's fetch waits for a connection as long. */
const connectMsMax = 10_000;
const answerMsMax = 300_000;

interface Posted {
  readonly url: URL;
  readonly headers: Record<string, string>;
  readonly body: string | Uint8Array;
  readonly signal: AbortSignal | null;
}

export function createNodeFetch(): typeof fetch {
  const options = { keepAlive: true, maxFreeSockets: idleSocketsMax };
  const agents = { http: new HttpAgent(options), https: new HttpsAgent(options) };
  return (input, init) => {
    const posted = simplyPosted(input, init);
    return posted === null ? fetch(input, init) : post(posted, agents);
  };
}

/** Returns null for a call that needs more of fetch: redirects to follow, bodies of other kinds. */
function simplyPosted(input: string | URL | Request, init: RequestInit = {}): Posted | null {
  const { method, headers = {}, body, redirect, signal = null } = init;
  const fits = input instanceof URL && method === 'POST' && redirect === 'manual';
  if (!fits || !(typeof body === 'string' || body instanceof Uint8Array)) return null;
  if (headers instanceof Headers || Array.isArray(headers)) return null;
  return { url: input, headers, body, signal };
}

/**
 * Rejects when there is no connection or no answer, and with the signal's reason once it is
 * aborted.
 */
async function post(
  { url, headers, body, signal }: Posted,
  agents: { readonly http: HttpAgent; readonly https: HttpsAgent },
): Promise<Response> {
  signal?.throwIfAborted();
  const options = { method: 'POST', headers };
  const request =
    url.protocol === 'https:'
      ? requestHttps(url, { ...options, agent: agents.https })
      : requestHttp(url, { ...options, agent: agents.http });
  const abort = () => request.destroy();
  signal?.addEventListener('abort', abort, { once: true });
  const late = setTimeout(() => request.destroy(new Error('it did not answer')), answerMsMax);
  request.once('socket', (socket) => limitConnecting(socket, request));
  return new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', (incoming) => {
      clearTimeout(late);
      resolve(incoming);
    });
    request.on('error', (error) => reject(signal?.aborted ? signal.reason : error));
    request.once('close', () => {
      clearTimeout(late);
      signal?.removeEventListener('abort', abort);
      // The promise is settled before, unless the answer is none, such as another protocol.
      reject(new Error('its connection closed'));
    });
    request.end(body);
  }).then(toResponse);
}

function limitConnecting(socket: Socket, request: ClientRequest): void {
  if (!socket.connecting) return;
  const late = setTimeout(() => request.destroy(new Error('no connection')), connectMsMax);
  const stop = () => clearTimeout(late);
  socket.once('connect', stop).once('close', stop);
}

const withoutBody = new Set([204, 205, 304]);

function toResponse(incoming: IncomingMessage): Response {
  const { statusCode: status = 0 } = incoming;
  if (status < 200 || status > 599) {
    incoming.destroy();
    throw new Error(`status ${status}`);
  }
  const { 'set-cookie': _, ...others } = incoming.headers;
  // Only set-cookie comes as a list.
  const headers = others as Record<string, string>;
  if (!withoutBody.has(status)) return new Response(bodyOf(incoming), { status, headers });
  incoming.resume();
  return new Response(null, { status, headers });
}

/** Each read takes all that has arrived; while nobody reads, the sender is held back. */
function bodyOf(incoming: IncomingMessage): ReadableStream<Uint8Array> {
  let wanted = false;
  let isLeft = false;
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        incoming.on('readable', () => void (wanted && give(controller)));
        // The end that follows the last read may come after the reader has left: a closed body
        // cannot be closed again.
        incoming.once('end', () => void (isLeft || controller.close()));
        incoming.once('error', (error) => controller.error(error));
      },
      pull(controller) {
        wanted = true;
        give(controller);
      },
      cancel() {
        isLeft = true;
        wanted = false;
        incoming.destroy();
      },
    },
    { highWaterMark: 0 },
  );

  function give(controller: ReadableStreamDefaultController<Uint8Array>): void {
    const bytes: Uint8Array | null = incoming.read();
    if (bytes === null) return;
    wanted = false;
    controller.enqueue(bytes);
  }
}
