/**
 * Requests under an idempotency key, which are all answered by the thread that owns their tenant:
 * there the second one finds the answer that the first began. Their bodies and answers are streams
 * that are handed from thread to thread.
 */
import { randomUUID } from 'node:crypto';
import type { Bytes } from '../../bodies/body-messages.ts';
import { askForBody, bodyPieces } from '../../bodies/body-pieces.ts';
import type { AppContext } from '../../middleware/app-env.ts';
import type { ForwardKeyed, Services } from '../../services.ts';
import type { Peers } from './peers.ts';
import type { Call, Handed } from './port-calls.ts';

interface ForwardedRequest {
  readonly id: string;
  readonly url: string;
  readonly method: string;
  readonly headers: readonly [name: string, value: string][];
  readonly body: ReadableStream<Bytes>;
}

interface ForwardedAnswer {
  readonly status: number;
  readonly headers: readonly [name: string, value: string][];
  readonly body: ReadableStream<Bytes>;
}

const object = 'requests';

/** Forwards those of other threads' tenants; null for a tenant of this one. */
export function forwardToOwner(peers: Peers): ForwardKeyed {
  return ({ tenant }, c) => {
    const owner = peers.ownerOf(tenant);
    return owner === peers.own ? null : forward(peers, owner, c);
  };
}

async function forward(peers: Peers, owner: number, c: AppContext): Promise<Response> {
  const { url, method, headers, signal } = c.req.raw;
  const id = randomUUID();
  askForBody(c);
  const body = streamOf(c);
  const request: ForwardedRequest = { id, url, method, headers: [...headers], body };
  const leave = (): void =>
    void peers.call(owner, { object, method: 'leave', args: [id] }).catch(() => {});
  signal.addEventListener('abort', leave, { once: true });
  const call = { object, method: 'answer', args: [request] };
  // The owner's `answerForwarded` makes it.
  const answer = (await peers.call(owner, call, [body])) as ForwardedAnswer;
  return new Response(answer.body, { status: answer.status, headers: [...answer.headers] });
}

/** The body as the connection has it: to read a part of it leaves the connection whole. */
function streamOf(c: AppContext): ReadableStream<Bytes> {
  const pieces = bodyPieces(c);
  return new ReadableStream(
    {
      async pull(controller) {
        const piece = await pieces.next();
        if (piece === null) controller.close();
        else controller.enqueue(ownBytes(piece));
      },
      cancel: () => pieces.stop(new Error('nobody reads the rest of the body')),
    },
    { highWaterMark: 0 },
  );
}

/** Answers what other threads forward to this one. */
export function answerForwarded(
  answer: (request: Request) => Promise<Response>,
  { keepAlive }: Pick<Services, 'keepAlive'>,
): (call: Call) => Promise<Handed> {
  const underWay = new Map<string, AbortController>();
  return async ({ method, args }) => {
    if (method === 'leave') {
      underWay.get(String(args[0]))?.abort();
      return { value: null, transfer: [] };
    }
    // `forward` sends nothing else.
    const { id, url, body, ...init } = args[0] as ForwardedRequest;
    const left = new AbortController();
    underWay.set(id, left);
    const headers = [...init.headers];
    const { signal } = left;
    // Node wants `duplex` beside a stream; its types do not know it.
    const stream: RequestInit & { duplex: 'half' } = { body, duplex: 'half' };
    const request = new Request(url, { ...init, headers, signal, ...stream });
    const response = await answer(request);
    // Otherwise its connection would wait for a reader, who is not going to come.
    if (!request.bodyUsed) void body.cancel().catch(() => {});
    const { readable, writable } = new TransformStream<Uint8Array, Bytes>({
      transform: (piece, controller) => controller.enqueue(ownBytes(piece)),
    });
    // An answer without a body has an empty one on its way.
    const passedOn = response.body?.pipeTo(writable) ?? writable.close();
    keepAlive(passedOn.catch(() => {}).finally(() => underWay.delete(id)));
    const { status, headers: answered } = response;
    const value: ForwardedAnswer = { status, headers: [...answered], body: readable };
    return { value, transfer: [readable] };
  };
}

/** A piece may be a view of a large buffer, all of which would be copied on its way. */
function ownBytes(piece: Uint8Array): Bytes {
  return new Uint8Array(piece);
}
