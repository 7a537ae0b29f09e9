/** Heads that two programs could read in two ways: smuggled bodies, odd paths, odd methods. */
import { verdictOf } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import { servedModel } from './system.ts';
import type { HostileSystem } from './system.ts';
import { sendRaw } from './wire.ts';
import type { RawAnswer } from './wire.ts';

/** workerd logs this of a request whose URL or method it cannot read. */
const workerdRefuses = 'Uncaught exception: ';

const chatPath = '/v1/chat/completions';
const chatBody = JSON.stringify({
  model: servedModel,
  messages: [{ role: 'user', content: 'Hi' }],
  max_tokens: 1,
});
const chunkedBody = `${chatBody.length.toString(16)}\r\n${chatBody}\r\n0\r\n\r\n`;

/** A second request in the place where only one of two readers looks for it. */
const smuggled = 'GET /user/balance HTTP/1.1\r\nhost: smuggled.example\r\n\r\n';

interface Head {
  /**
   * workerd takes it, by the chunks, and goes on with what follows them (docs/run-the-edge.md): no
   * attack while nothing that reads lengths otherwise stands before it.
   */
  readonly only?: 'node';
  readonly line?: string;
  readonly host?: readonly string[];
  readonly lines: readonly string[];
  readonly body: string;
}

const length = `content-length: ${chatBody.length}`;
const chunked = 'transfer-encoding: chunked';

/** Each is refused with 400, and nothing after it on the connection is answered. */
const ambiguous: Readonly<Record<string, Head>> = {
  'two content-lengths': {
    lines: [length, 'content-length: 1'],
    body: chatBody,
  },
  'a content-length and chunks': {
    only: 'node',
    lines: [length, chunked],
    body: chunkedBody,
  },
  'chunks and a content-length of nothing': {
    only: 'node',
    lines: [chunked, 'content-length: 0'],
    body: chunkedBody + smuggled,
  },
  'chunked twice': { only: 'node', lines: [chunked, chunked], body: chunkedBody },
  'an encoding that only sounds like chunked': {
    lines: ['transfer-encoding: xchunked'],
    body: chunkedBody,
  },
  'chunked before another encoding': {
    lines: ['transfer-encoding: chunked, identity'],
    body: chunkedBody,
  },
  'a space before the colon': {
    lines: [`transfer-encoding : chunked`, length],
    body: chunkedBody,
  },
  'a folded header': { lines: [length, 'x-folded: a\r\n b: c'], body: chatBody },
  'a header without a name': { lines: [length, ': x'], body: chatBody },
  'a header with NUL in its value': { lines: [length, 'x-nul: a\0b'], body: chatBody },
  'a bare carriage return inside a header': {
    lines: [length, 'x-bare: a\rhost: other.example'],
    body: chatBody,
  },
  'a signed content-length': { lines: [`content-length: +${chatBody.length}`], body: chatBody },
  'a hexadecimal content-length': { lines: ['content-length: 0x10'], body: chatBody },
  'a content-length beyond 2^64': {
    lines: ['content-length: 18446744073709551617'],
    body: chatBody,
  },
  'a chunk size beyond 2^64': {
    lines: [chunked],
    body: `fffffffffffffffff\r\n${chatBody}\r\n0\r\n\r\n`,
  },
  'a chunk size with a sign': { lines: [chunked], body: `-1\r\n${chatBody}\r\n0\r\n\r\n` },
  'no host': { host: [], lines: [length], body: chatBody },
  'two hosts': { host: ['a.example', 'b.example'], lines: [length], body: chatBody },
};

/** Paths that must not reach the operator's or the workers' routes without their tokens. */
const paths = [
  '//admin/tenants',
  '/admin//tenants',
  '/v1/../admin/tenants',
  '/v1/%2e%2e/admin/tenants',
  '/%61dmin/tenants',
  '/ADMIN/tenants',
  '/admin/tenants/',
  '/admin/tenants;x=1',
  '/admin/tenants%00',
  '/admin/openapi.json/../tenants',
  '/admin/docs/..%2ftenants',
  '/admin\\tenants',
  '/internal/workers/../workers/heartbeat',
  'http://127.0.0.1/admin/tenants',
  'http://admin:pass@127.0.0.1/admin/tenants',
];

const overrides = [
  ['x-http-method-override', 'PATCH'],
  ['x-method-override', 'DELETE'],
  ['x-original-url', '/admin/tenants'],
  ['x-rewrite-url', '/admin/tenants'],
  ['x-forwarded-for', '127.0.0.1'],
  ['forwarded', 'for=127.0.0.1;host=localhost'],
];

export const requestLineAttacks: readonly Attack[] = [
  ...Object.entries(ambiguous).map(([name, head]): Attack => ({
    name,
    ...(head.only && { only: head.only }),
    mayLog: workerdRefuses,
    async run(system) {
      const answer = await sendRaw(system.edge.url, requestOf(system, head) + smuggled);
      return refusedAlone(system, answer);
    },
  })),
  {
    name: 'a request inside the chunks, where a content-length has ended',
    mayLog: workerdRefuses,
    run: smuggleInsideChunks,
  },
  ...paths.map((path): Attack => ({
    name: `the operator's routes as ${path}`,
    mayLog: workerdRefuses,
    async run(system) {
      const lines = [`GET ${path} HTTP/1.1`, 'host: 127.0.0.1', 'connection: close'];
      const authorization = `authorization: Bearer ${system.attacker.key}`;
      const head = [...lines, authorization].join('\r\n');
      const answer = await sendRaw(system.edge.url, `${head}\r\n\r\n`);
      const { statuses, text } = answer;
      return verdictOf(
        isRefusalOfWorkerd(system, answer) ||
          (statuses.length === 1 && [400, 401, 404, 405].includes(statuses[0] ?? 0))
          ? null
          : `it answered ${statuses.join(', ')}: ${text.slice(0, 200)}`,
      );
    },
  })),
  ...overrides.map(([name, value]): Attack => ({
    name: `${name}: ${value} changes nothing`,
    async run(system) {
      const headers = { [name ?? '']: value ?? '' };
      const answer = await system.post(system.attacker, '/v1/quote', chatBody, { headers });
      const text = await answer.text();
      return verdictOf(answer.status === 200 ? null : `it answered ${answer.status} ${text}`);
    },
  })),
  ...['TRACE', 'CONNECT', 'PROPFIND', 'get', 'GET\tX'].map((method): Attack => ({
    name: `the method ${JSON.stringify(method)} on the operator's routes`,
    mayLog: workerdRefuses,
    async run(system) {
      const head = `${method} /admin/tenants HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n`;
      const answer = await sendRaw(system.edge.url, head);
      const { statuses } = answer;
      return verdictOf(
        isRefusalOfWorkerd(system, answer) ||
          statuses.every((status) => status >= 400 && status < 500)
          ? null
          : `it answered ${statuses.join(', ')}`,
      );
    },
  })),
  {
    name: 'a head of 1 MB',
    async run(system) {
      const head = { lines: [length, `x-long: ${'a'.repeat(2 ** 20)}`], body: chatBody };
      const { statuses } = await sendRaw(system.edge.url, requestOf(system, head));
      return verdictOf(
        statuses.every((status) => status === 431 || status === 400)
          ? null
          : `it answered ${statuses.join(', ')}`,
      );
    },
  },
  {
    name: 'a head of 5,000 headers',
    async run(system) {
      const many = Array.from({ length: 5_000 }, (_, at) => `x-${at}: 1`);
      const head = { lines: [length, ...many], body: chatBody };
      const { statuses } = await sendRaw(system.edge.url, requestOf(system, head));
      return verdictOf(
        statuses.every((status) => status < 500) ? null : `it answered ${statuses.join(', ')}`,
      );
    },
  },
];

/** Whoever went by the length would answer the list of models as a second request. */
async function smuggleInsideChunks(system: HostileSystem): Promise<Verdict> {
  const { key } = system.attacker;
  const lines = ['GET /v1/models HTTP/1.1', 'host: a.example', `authorization: Bearer ${key}`];
  const hidden = `${lines.join('\r\n')}\r\n\r\n`;
  const isListed = ({ text }: RawAnswer): boolean => text.includes('"object":"list"');
  const send = (head: Head, after = ''): Promise<RawAnswer> =>
    sendRaw(system.edge.url, requestOf(system, head) + after);
  const both = `${chatBody}\n${hidden}`;
  const body = `${both.length.toString(16)}\r\n${both}\r\n0\r\n\r\n`;
  const ended = `content-length: ${body.indexOf(hidden)}`;
  const inside = await send({ lines: [ended, chunked], body });
  const plain = await send({ lines: [length], body: chatBody }, hidden);
  return verdictOf(
    isListed(inside) ? 'the hidden request was answered' : null,
    inside.statuses[0] === 400 ? null : `it answered ${inside.statuses.join(', ')}`,
    // Without this the attack could not break anything.
    isListed(plain) ? null : 'the same request in the open was not answered',
  );
}

function requestOf(system: HostileSystem, head: Head): string {
  const hosts = (head.host ?? ['127.0.0.1']).map((host) => `host: ${host}`);
  const authorization = `authorization: Bearer ${system.attacker.key}`;
  const line = head.line ?? `POST ${chatPath} HTTP/1.1`;
  return `${[line, ...hosts, authorization, ...head.lines].join('\r\n')}\r\n\r\n${head.body}`;
}

/** workerd's own answer to a head that it cannot read: no code of the edge has run. */
function isRefusalOfWorkerd(
  { runtime }: HostileSystem,
  { statuses, text, isClosed }: RawAnswer,
): boolean {
  const own = /\r\n\r\n(Internal Server Error|ERROR: Unrecognized request method\.)$/;
  const [status = 0] = statuses;
  const isAlone = statuses.length === 1 && isClosed;
  return runtime === 'workerd' && isAlone && [500, 501].includes(status) && own.test(text);
}

function refusedAlone(system: HostileSystem, answer: RawAnswer): Verdict {
  const { statuses, text } = answer;
  if (statuses.length === 0 || isRefusalOfWorkerd(system, answer)) return 'held';
  return verdictOf(
    statuses.length === 1 && [400, 431, 501].includes(statuses[0] ?? 0)
      ? null
      : `it answered ${statuses.join(', ')}: ${text.slice(0, 200)}`,
  );
}
