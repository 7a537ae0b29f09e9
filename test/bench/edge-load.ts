/**
 * The far sides of the edge benchmark: a stub worker that answers at once, and a client that writes
 * one prepared request after another on raw sockets. Both are as light as can be, because they
 * share the cores with what is measured.
 */
import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';

/** Streams as many events as the request's `max_tokens`, all in one write. */
export async function startInstantWorker(): Promise<{ url: string; close(): void }> {
  const answers = new Map<number, Buffer>();
  const server = createServer((req, res) => {
    const pieces: Buffer[] = [];
    req.on('data', (piece: Buffer) => pieces.push(piece));
    req.on('end', () => {
      const [, tokens = '1'] = /"max_tokens":(\d+)/.exec(Buffer.concat(pieces).toString()) ?? [];
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

function streamOf(tokens: number): Buffer {
  const head = { id: 'x', object: 'chat.completion.chunk', created: 1, model: 'sift-test' };
  const usageAt = (output: number) => ({
    prompt_tokens: 100,
    completion_tokens: output,
    total_tokens: 100 + output,
    prompt_tokens_details: { cached_tokens: 64 },
    completion_tokens_details: { reasoning_tokens: 0 },
    prompt_cache_hit_tokens: 64,
    prompt_cache_miss_tokens: 36,
  });
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
}

/** Answers per second, and the median time of one. Throws at the first answer that is not a 200. */
export async function runLoad(
  load: Load,
): Promise<{ perSecond: number; p50Ms: number; p99Ms: number }> {
  const { hostname, port } = new URL(load.url);
  const lines = Object.entries(load.headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = Buffer.from(
    `POST ${load.path} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-type: application/json\r\n` +
      `${lines.join('')}content-length: ${Buffer.byteLength(load.body)}\r\n\r\n${load.body}`,
  );
  const startedMs = performance.now();
  const untilMs = startedMs + load.seconds * 1_000;
  const times: number[] = [];
  const runOne = async (): Promise<void> => {
    const socket = connect(Number(port), hostname).setNoDelay();
    const read = answerReader(socket);
    while (performance.now() < untilMs) {
      const beganMs = performance.now();
      socket.write(request);
      const answer = await read();
      if (!answer.startsWith('HTTP/1.1 200')) throw new Error(answer.slice(0, 1_000));
      times.push(performance.now() - beganMs);
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: load.connections }, runOne));
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? NaN;
  const seconds = (performance.now() - startedMs) / 1_000;
  return { perSecond: times.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** Resolves with each whole answer: of a stated length, or in chunks up to the empty one. */
function answerReader(socket: Socket): () => Promise<string> {
  let text = '';
  let waiting: { resolve(answer: string): void; reject(error: Error): void } | null = null;
  socket.setEncoding('latin1');
  socket.on('data', (piece: string) => {
    text += piece;
    if (!isWhole(text)) return;
    const answer = text;
    text = '';
    waiting?.resolve(answer);
  });
  socket.on('error', (error) => waiting?.reject(error));
  socket.on('close', () => waiting?.reject(new Error(`closed after: ${text}`)));
  return () => new Promise((resolve, reject) => (waiting = { resolve, reject }));
}

function isWhole(text: string): boolean {
  const head = text.indexOf('\r\n\r\n');
  if (head < 0) return false;
  const [, length] = /content-length: (\d+)/i.exec(text.slice(0, head)) ?? [];
  return length === undefined
    ? text.endsWith('\r\n0\r\n\r\n')
    : text.length >= head + 4 + Number(length);
}
