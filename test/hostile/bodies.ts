/**
 * Large bodies: from callers who may not send them, from many at once, and of many small pieces.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { verdictOf } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import { servedModel } from './system.ts';
import type { Caller, HostileSystem } from './system.ts';

const connections = 60;
const bodyBytes = 8 * 1024 * 1024;
const piece = Buffer.alloc(256 * 1024, 0x20);
/**
 * The senders may add so much to the edge, buffers included: a fraction of the 480 MiB that they
 * send. For workerd, two programs are counted: it and the one in front that starts it.
 */
const growthMiBMax = { node: 240, workerd: 320 } as const;
const chatPath = '/v1/chat/completions';

interface Sender {
  readonly socket: Socket;
  readonly status: () => number | null;
}

/** States a body, sends nearly all of it, and then nothing. */
function startSender(system: HostileSystem, { key }: Caller, isChunked: boolean): Sender {
  const { hostname, port } = new URL(system.edge.url);
  const socket = connect(Number(port), hostname);
  let text = '';
  let sent = 0;
  socket.on('error', () => {});
  socket.on('data', (bytes) => (text += bytes.toString('latin1')));
  const length = isChunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${bodyBytes}`;
  socket.write(`POST ${chatPath} HTTP/1.1\r\nHost: x.example\r\n${length}\r\n`);
  socket.write(`Authorization: Bearer ${key}\r\nContent-Type: application/json\r\n\r\n`);
  const send = (): void => {
    while (sent + piece.length < bodyBytes && !socket.destroyed) {
      sent += piece.length;
      if (isChunked) socket.write(`${piece.length.toString(16)}\r\n`);
      socket.write(piece);
      if (!socket.write(isChunked ? '\r\n' : '')) return;
    }
  };
  socket.on('drain', send);
  send();
  return { socket, status: () => Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0) || null };
}

async function flood(
  system: HostileSystem,
  caller: Caller,
  options: { readonly isChunked: boolean; readonly statuses: readonly number[] },
): Promise<Verdict> {
  const before = edgeMiB(system);
  let peak = before;
  const senders = Array.from({ length: connections }, () =>
    startSender(system, caller, options.isChunked),
  );
  const untilMs = performance.now() + 25_000;
  while (performance.now() < untilMs && senders.some((each) => each.status() === null)) {
    await sleep(100);
    peak = Math.max(peak, edgeMiB(system));
  }
  const statuses = new Set(senders.map((each) => each.status()));
  for (const { socket } of senders) socket.destroy();
  const odd = [...statuses].find((status) => !options.statuses.includes(status ?? 0));
  return verdictOf(
    peak - before > growthMiBMax[system.runtime]
      ? `the edge grew by ${Math.round(peak - before)} MiB`
      : null,
    odd === undefined ? null : `senders were answered ${[...statuses].join(', ')}`,
  );
}

function edgeMiB({ edge }: HostileSystem): number {
  return processMiB(edge.pid);
}

/** The memory of a process with its children, one of which is workerd. */
function processMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const own = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? Number.NaN) / 1024;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  const pids = children === '' ? [] : children.split(' ').map(Number);
  return pids.reduce((total, child) => total + processMiB(child), own);
}

/** Others go on being served while one large request is read. */
async function pieces(system: HostileSystem, body: object): Promise<Verdict> {
  const read = new AbortController();
  const answer = system.post(system.attacker, chatPath, { ...body }).finally(() => read.abort());
  let served = 0;
  while (!read.signal.aborted) {
    const health = await fetch(`${system.edge.url}/health`);
    await health.text();
    if (!read.signal.aborted && health.ok) served++;
  }
  const { status } = await answer;
  return verdictOf(
    status >= 500 ? `it was answered ${status}` : null,
    served < 20 ? `others were served ${served} times while it was read` : null,
  );
}

const parameters = () => ({
  type: 'object',
  properties: Object.fromEntries(
    Array.from({ length: 250_000 }, (_, at) => [`p${at}`, { type: 'string' }]),
  ),
});
const messages = [{ role: 'user', content: 'x' }];

export const bodyAttacks: readonly Attack[] = [
  {
    name: `${connections} unfinished bodies of 8 MB without a balance`,
    run: (system) => flood(system, system.poor, { isChunked: false, statuses: [402] }),
  },
  {
    name: `${connections} unfinished chunked bodies of 8 MB under a revoked key`,
    async run(system) {
      const caller = await system.addTenant(`revoked-${Date.now()}`);
      const { tenant, key } = caller;
      const keyId = key.split('.')[1] ?? '';
      await system.operator.call('PATCH', `/tenants/${tenant}/keys/${keyId}`, {
        status: 'revoked',
      });
      return flood(system, caller, { isChunked: true, statuses: [401] });
    },
  },
  {
    name: `${connections} unfinished bodies of 8 MB by one who may send them`,
    secondsMax: 60,
    run: (system) => flood(system, system.attacker, { isChunked: false, statuses: [408, 429] }),
  },
  {
    name: '8 MB of a schema in small pieces',
    // workerd has no threads: others wait while one isolate reads it, and only those in that
    // isolate.
    only: 'node',
    secondsMax: 60,
    run: (system) =>
      pieces(system, {
        model: servedModel,
        messages,
        tools: [{ type: 'function', function: { name: 'f', parameters: parameters() } }],
      }),
  },
  {
    name: '8 MB of token ids',
    only: 'node',
    secondsMax: 60,
    run: (system) =>
      pieces(system, {
        model: servedModel,
        messages,
        prompt: Array.from({ length: 4_000_000 }, () => 1),
      }),
  },
];
