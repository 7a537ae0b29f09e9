/**
 * The far sides of the edge benchmark: a stub worker that answers at once, and a client that writes
 * one prepared request after another on raw sockets. Both are as light as can be, because they
 * share the cores with what is measured.
 */
import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Streams as many events as the request's `max_tokens`, all in one write; to who asks for no stream
 * it answers at once.
 */
export async function startInstantWorker(): Promise<{ url: string; close(): void }> {
  const answers = new Map<number, Buffer>();
  const server = createServer((req, res) => {
    const pieces: Buffer[] = [];
    req.on('data', (piece: Buffer) => pieces.push(piece));
    req.on('end', () => {
      const body = Buffer.concat(pieces).toString();
      if (!body.includes('"stream":true')) {
        res.writeHead(200, { 'content-type': 'application/json' }).end(wholeAnswer);
        return;
      }
      const [, tokens = '1'] = /"max_tokens":(\d+)/.exec(body) ?? [];
      const count = Number(tokens);
      const answer = answers.get(count) ?? streamOf(count);
      answers.set(count, answer);
      res.writeHead(200, { 'content-type': 'text/event-stream' }).end(answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${port}`, close };
}

const usageAt = (output: number) => ({
  prompt_tokens: 100,
  completion_tokens: output,
  total_tokens: 100 + output,
  prompt_tokens_details: { cached_tokens: 64 },
  completion_tokens_details: { reasoning_tokens: 0 },
  prompt_cache_hit_tokens: 64,
  prompt_cache_miss_tokens: 36,
});

const wholeAnswer = JSON.stringify({
  id: 'x',
  object: 'chat.completion',
  created: 1,
  model: 'sift-test',
  choices: [
    {
      index: 0,
      message: { role: 'assistant', content: ' word' },
      logprobs: null,
      finish_reason: 'length',
    },
  ],
  usage: usageAt(1),
});

function streamOf(tokens: number): Buffer {
  const head = { id: 'x', object: 'chat.completion.chunk', created: 1, model: 'sift-test' };
  const events: object[] = Array.from({ length: tokens }, (_, index) => ({
    ...head,
    choices: [
      {
        index: 0,
        delta: { ...(index === 0 && { role: 'assistant' }), content: ' word' },
        logprobs: null,
        finish_reason: index === tokens - 1 ? 'length' : null,
      },
    ],
    usage: usageAt(index + 1),
  }));
  events.push({ ...head, choices: [], usage: usageAt(tokens) });
  const frames = events.map((event) => `data: ${JSON.stringify(event)}\n\n`);
  return Buffer.from(`${frames.join('')}data: [DONE]\n\n`);
}

export interface Load {
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly connections: number;
  readonly seconds: number;
  /** An even pace; without it each connection asks as soon as it is answered. */
  readonly perSecond?: number;
}

export interface LoadTimes {
  readonly answers: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/**
 * Answers per second and the times of one; at an even pace from when it was due. Throws at the
 * first answer that is not a 200.
 */
export async function runLoad(load: Load): Promise<LoadTimes> {
  const { seconds, connections, perSecond = Infinity } = load;
  const everyMs = (connections * 1_000) / perSecond;
  const startedMs = performance.now();
  const untilMs = startedMs + seconds * 1_000;
  const times: number[] = [];
  const runOne = async (_: unknown, index: number): Promise<void> => {
    const ask = openConnection(load);
    let dueMs = startedMs + (index / connections) * everyMs;
    while (performance.now() < untilMs) {
      const waitMs = dueMs - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      const beganMs = everyMs === 0 ? performance.now() : dueMs;
      await ask.send();
      times.push(performance.now() - beganMs);
      dueMs += everyMs;
    }
    ask.close();
  };
  await Promise.all(Array.from({ length: connections }, runOne));
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? NaN;
  const tookSeconds = (performance.now() - startedMs) / 1_000;
  const answers = times.length;
  return { answers, perSecond: answers / tookSeconds, p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** The longest that a short request took while another connection got one long stream. */
export async function longestWaitBeside(
  load: Pick<Load, 'url' | 'path' | 'headers' | 'seconds'> & {
    readonly long: string;
    readonly short: string;
  },
): Promise<number> {
  const long = openConnection({ ...load, body: load.long });
  const short = openConnection({ ...load, body: load.short });
  const untilMs = performance.now() + load.seconds * 1_000;
  const longs = (async () => {
    while (performance.now() < untilMs) await long.send();
  })();
  let longestMs = 0;
  while (performance.now() < untilMs) {
    const beganMs = performance.now();
    await short.send();
    longestMs = Math.max(longestMs, performance.now() - beganMs);
  }
  await longs;
  long.close();
  short.close();
  return longestMs;
}

function openConnection(load: Pick<Load, 'url' | 'path' | 'headers' | 'body'>) {
  const { hostname, port } = new URL(load.url);
  const lines = Object.entries(load.headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = Buffer.from(
    `POST ${load.path} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-type: application/json\r\n` +
      `${lines.join('')}content-length: ${Buffer.byteLength(load.body)}\r\n\r\n${load.body}`,
  );
  const socket = connect(Number(port), hostname).setNoDelay();
  const read = answerReader(socket);
  return {
    async send(): Promise<void> {
      socket.write(request);
      const answer = await read();
      if (!answer.startsWith('HTTP/1.1 200')) throw new Error(answer.slice(0, 1_000));
    },
    close: () => void socket.destroy(),
  };
}

/** Resolves with each whole answer: of a stated length, or in chunks up to the empty one. */
function answerReader(socket: Socket): () => Promise<string> {
  let text = '';
  let waiting: { resolve(answer: string): void; reject(error: Error): void } | null = null;
  socket.setEncoding('latin1');
  socket.on('data', (piece: string) => {
    text += piece;
    if (!isWhole(text, piece)) return;
    const answer = text;
    text = '';
    waiting?.resolve(answer);
  });
  socket.on('error', (error) => waiting?.reject(error));
  socket.on('close', () => waiting?.reject(new Error(`closed after: ${text}`)));
  return () => new Promise((resolve, reject) => (waiting = { resolve, reject }));
}

const headCharactersMax = 4 * 1024;

/** To look at the head and the last piece alone keeps a long text in pieces. */
function isWhole(text: string, piece: string): boolean {
  if (text.length > headCharactersMax) return piece.endsWith('0\r\n\r\n');
  const head = text.indexOf('\r\n\r\n');
  if (head < 0) return false;
  const [, length] = /content-length: (\d+)/i.exec(text.slice(0, head)) ?? [];
  return length === undefined
    ? text.endsWith('\r\n0\r\n\r\n')
    : text.length >= head + 4 + Number(length);
}
