/**
 * The clients of the memory benchmark: what an edge meets in a day, in a fixed order, so that each
 * thousand requests are as the thousand before. Each checks the status that it has to get.
 */
import { Agent, request } from 'node:http';
import { seedModel } from '../support/edge/seed.ts';

export interface Keys {
  /** Keys of tenants that have money and no limits. */
  readonly rich: readonly string[];
  /** The key of a tenant without money. */
  readonly poor: string;
  /** The key of a tenant that may ask once a minute. */
  readonly limited: string;
}

interface Sent {
  readonly path?: string;
  readonly key: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
  readonly status: readonly number[];
  /** Goes away when the answer begins. */
  readonly leaves?: boolean;
}

type Kind = (of: { readonly index: number; readonly key: string; readonly keys: Keys }) => Sent;

/** More than the 100 tokens that the worker counts. */
const filler = 'Tell me of the sea, and of those who sail it. '.repeat(12);
const agent = new Agent({ keepAlive: true });

const bodyOf = (index: number, more: object = {}): string =>
  JSON.stringify({
    model: seedModel,
    messages: [{ role: 'user', content: `${index}: ${filler}` }],
    max_tokens: 4,
    ...more,
  });

const kinds: readonly Kind[] = [
  ({ index, key }) => ({ key, body: bodyOf(index), status: [200] }),
  ({ index, key }) => ({ key, body: bodyOf(index, { stream: true }), status: [200] }),
  ({ index, key }) => ({ key, body: conversation(index), status: [200] }),
  ({ index, key }) => ({
    key,
    headers: { 'idempotency-key': `whole-${index}` },
    body: bodyOf(index),
    status: [200],
  }),
  ({ index, key }) => ({
    key,
    headers: { 'idempotency-key': `stream-${index}` },
    body: bodyOf(index, { stream: true }),
    status: [200],
  }),
  // The ids of earlier requests, most of which are settled by now.
  ({ index, keys }) => {
    const before = Math.max(0, index - kinds.length * keys.rich.length);
    const at = before - (before % kinds.length) + 3;
    const key = keys.rich[Math.floor(at / kinds.length) % keys.rich.length] ?? '';
    const headers = { 'idempotency-key': `whole-${at}` };
    return { key, headers, body: bodyOf(at), status: [200, 409] };
  },
  ({ index, key }) => ({
    key,
    path: '/anthropic/v1/messages',
    body: bodyOf(index, { stream: true }),
    status: [200],
  }),
  ({ index, key }) => ({
    key,
    body: bodyOf(index, { max_tokens: 64, stream: true }),
    status: [200],
    leaves: true,
  }),
  ({ index, keys }) => ({ key: keys.poor, body: bodyOf(index), status: [402] }),
  ({ index, keys }) => ({ key: keys.limited, body: bodyOf(index), status: [200, 429] }),
  ({ index, key }) => ({
    key,
    body: bodyOf(index, { model: `none-${index}` }),
    status: [404],
  }),
  ({ index, key }) => ({ key: `${key}${index}`, body: bodyOf(index), status: [401] }),
];

/** Ten turns of a conversation begin alike, and go on with its next turn. */
function conversation(index: number): string {
  const turn = Math.floor(index / kinds.length) % 10;
  const about = Math.floor(index / kinds.length / 10);
  const messages = Array.from({ length: turn + 1 }, (_, at) => ({
    role: 'user',
    content: `${about}, ${at}: ${filler}`,
  }));
  return bodyOf(index, { messages });
}

/** @throws Error where an answer has another status than its request has to get. */
export async function askNth(url: string, index: number, keys: Keys): Promise<void> {
  const kind = kinds[index % kinds.length];
  const key = keys.rich[Math.floor(index / kinds.length) % keys.rich.length];
  if (kind === undefined || key === undefined) throw new Error('there are kinds and keys');
  const sent = kind({ index, key, keys });
  const status = await send(url, sent);
  if (sent.status.includes(status)) return;
  throw new Error(`request ${index}: ${status} in place of ${sent.status.join(' or ')}`);
}

function send(url: string, sent: Sent): Promise<number> {
  const { path = '/v1/chat/completions', key, headers = {}, body, leaves = false } = sent;
  return new Promise((resolve, reject) => {
    const options = {
      agent,
      method: 'POST',
      headers: {
        authorization: `Bearer ${key}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        ...headers,
      },
    };
    const req = request(url + path, options, (res) => {
      const { statusCode = 0 } = res;
      res.once('close', () => resolve(statusCode));
      if (leaves) req.destroy();
      else res.resume();
    });
    req.once('error', reject);
    req.end(body);
  });
}
