/**
 * HTTP/1.1 for one purpose: ranges, over kept connections, straight into the caller's memory.
 * Node's own client makes a new buffer for every 64 KiB that arrive: 1.05 s of processor time and
 * as many megabytes of garbage per gigabyte, where this takes 0.23 s (loopback, Node 24). Requests
 * are signed before they come here, and answers other than the range are small and handed back
 * whole.
 */
import type { Hash } from 'node:crypto';
import { connect as connectPlain } from 'node:net';
import type { OnReadOpts, Socket } from 'node:net';
import { connect as connectSecure } from 'node:tls';
import { DamagedPart } from './s3-errors.ts';

const readBufferBytes = 256 * 1024;
const headBytesMax = 64 * 1024;
const otherBodyBytesMax = 1024 * 1024;
/** A connection that brings less than this in `stallMs` is worth another try. */
const trickleBytes = 64 * 1024;

export interface RangeRequest {
  readonly secure: boolean;
  readonly hostname: string;
  readonly port: number;
  /** The path with its query, escaped. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface RangeAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Empty where the bytes went into the caller's memory. */
  readonly body: Buffer;
}

interface GetOptions {
  /** Filled by a 206 of exactly this length; else the answer has another status or no body. */
  readonly into: Uint8Array;
  /** Told of the range's bytes as they come, while the processor still has them at hand. */
  readonly hash: Pick<Hash, 'update'>;
  /** Bounds the wait for the head, and for each next trickle of the body. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

/** Keeps as many connections as there are requests at once, each while it goes well. */
export class RangeConnections {
  readonly #idle = new Map<string, Connection[]>();
  #isClosed = false;

  /** Rejects when the connection fails, stalls or ends early; the same request may go well then. */
  async get(request: RangeRequest, options: GetOptions): Promise<RangeAnswer> {
    const origin = `${request.secure} ${request.hostname} ${request.port}`;
    const idle = this.#idle.get(origin) ?? [];
    this.#idle.set(origin, idle);
    let connection = idle.pop();
    // The store closes those that are idle for long.
    while (connection !== undefined && !connection.isReusable) connection = idle.pop();
    connection ??= new Connection(request);
    const answer = await connection.exchange(request, options);
    if (this.#isClosed) connection.close();
    else if (connection.isReusable) idle.push(connection);
    return answer;
  }

  close(): void {
    this.#isClosed = true;
    for (const connection of [...this.#idle.values()].flat()) connection.close();
    this.#idle.clear();
  }
}

/** A socket and the one exchange that is under way on it. */
class Connection {
  readonly #socket: Socket;
  #reader: AnswerReader | null = null;
  #fail: (error: Error) => void = () => {};
  #done: () => void = () => {};

  constructor({ secure, hostname, port }: RangeRequest) {
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafe(readBufferBytes),
      callback: (count, buffer) => {
        this.#take(buffer.subarray(0, count));
        return true;
      },
    };
    const options = { host: hostname, port, onread };
    this.#socket = secure ? connectSecure(options) : connectPlain(options);
    this.#socket.setNoDelay(true);
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('end', () => this.#end());
    this.#socket.on('close', () => this.#end());
  }

  get isReusable(): boolean {
    return !this.#socket.destroyed;
  }

  close(): void {
    this.#socket.destroy();
  }

  async exchange(request: RangeRequest, options: GetOptions): Promise<RangeAnswer> {
    const { stallMs, signal } = options;
    signal.throwIfAborted();
    const reader = new AnswerReader(options);
    this.#reader = reader;
    const finished = new Promise<void>((resolve, reject) => {
      this.#done = resolve;
      this.#fail = reject;
    });
    let bytesBefore = 0;
    const timer = setInterval(() => {
      const wanted = Math.min(trickleBytes, options.into.length / 8);
      if (reader.bytes - bytesBefore < wanted) {
        this.#fail(new DamagedPart(`the store sent next to nothing for ${stallMs} ms`));
      }
      bytesBefore = reader.bytes;
    }, stallMs);
    const abort = () => this.#fail(new Error('the load was given up', { cause: signal.reason }));
    signal.addEventListener('abort', abort, { once: true });
    try {
      this.#socket.write(requestText(request));
      await finished;
      if (!reader.keepsConnection) this.close();
      return reader.answer();
    } catch (error) {
      this.close();
      throw error;
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', abort);
      this.#reader = null;
    }
  }

  #take(bytes: Uint8Array): void {
    // Whatever comes without having been asked for makes the connection useless.
    if (this.#reader === null) return this.close();
    try {
      this.#reader.take(bytes);
      if (this.#reader.isDone) this.#done();
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #end(): void {
    if (this.#reader?.isDone === true) return;
    this.#fail(new DamagedPart(this.#reader?.progress() ?? 'the connection was closed'));
    this.close();
  }
}

/**
 * Takes an answer's bytes as they come: the head, then the range, or a small body of another kind.
 */
class AnswerReader {
  readonly #into: Uint8Array;
  readonly #hash: Pick<Hash, 'update'>;
  #head: Buffer = Buffer.alloc(0);
  #status = 0;
  #headers: Record<string, string> = {};
  #kind: 'head' | 'range' | 'other' | 'done' = 'head';
  #rangeBytes = 0;
  #other: Buffer = Buffer.alloc(0);
  #isClean = true;
  bytes = 0;

  constructor({ into, hash }: Pick<GetOptions, 'into' | 'hash'>) {
    this.#into = into;
    this.#hash = hash;
  }

  get isDone(): boolean {
    return this.#kind === 'done';
  }

  /** True if another request may follow on the same connection. */
  get keepsConnection(): boolean {
    return this.#isClean && this.#headers.connection?.toLowerCase() !== 'close';
  }

  answer(): RangeAnswer {
    return { status: this.#status, headers: this.#headers, body: this.#other };
  }

  progress(): string {
    if (this.#kind !== 'range') return 'the connection was closed before the answer was whole';
    return `the body broke off after ${this.#rangeBytes} of ${this.#into.length} bytes`;
  }

  take(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    if (this.#kind === 'head') this.#takeHead(bytes);
    else if (this.#kind === 'range') this.#takeRange(bytes);
    else if (this.#kind === 'other') this.#takeOther(bytes);
    else this.#isClean = false;
  }

  #takeHead(bytes: Uint8Array): void {
    this.#head = Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#head.length > headBytesMax)
        throw new DamagedPart('the answer has no end of its head');
      return;
    }
    const [statusLine = '', ...lines] = this.#head.toString('latin1', 0, end).split('\r\n');
    const status = /^HTTP\/1\.[01] (\d{3})/.exec(statusLine)?.[1];
    if (status === undefined) throw new DamagedPart('the answer is not HTTP/1.1');
    this.#status = Number(status);
    for (const line of lines) {
      const colon = line.indexOf(':');
      this.#headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const rest = this.#head.subarray(end + 4);
    const isRange =
      this.#status === 206 && this.#headers['content-length'] === String(this.#into.length);
    if (isRange) {
      this.#kind = 'range';
      this.#takeRange(rest);
    } else if (this.#status < 300) {
      // Not what was asked for: its head says what it is, and its body may be long.
      this.#isClean = false;
      this.#kind = 'done';
    } else {
      this.#kind = 'other';
      this.#takeOther(rest);
    }
  }

  #takeRange(bytes: Uint8Array): void {
    const fitting = bytes.subarray(0, this.#into.length - this.#rangeBytes);
    this.#into.set(fitting, this.#rangeBytes);
    this.#hash.update(fitting);
    this.#rangeBytes += fitting.length;
    if (fitting.length < bytes.length) this.#isClean = false;
    if (this.#rangeBytes === this.#into.length) this.#kind = 'done';
  }

  /** Errors come with a length or in chunks; they are small and told by their code. */
  #takeOther(bytes: Uint8Array): void {
    this.#other = Buffer.concat([this.#other, bytes]);
    if (this.#other.length > otherBodyBytesMax) throw new DamagedPart('the error is too long');
    const length = this.#headers['content-length'];
    if (length !== undefined) {
      if (this.#other.length >= Number(length)) this.#kind = 'done';
      return;
    }
    const body = decodeChunks(this.#other);
    if (body === null) return;
    this.#other = body;
    this.#kind = 'done';
  }
}

/** The body, once its last chunk is there; else null. */
function decodeChunks(bytes: Buffer): Buffer | null {
  const chunks: Buffer[] = [];
  for (let at = 0; ;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return null;
    const size = Number.parseInt(bytes.toString('latin1', at, lineEnd), 16);
    if (Number.isNaN(size)) throw new DamagedPart('the error has a body without an end');
    if (size === 0) return bytes.indexOf('\r\n\r\n', lineEnd) < 0 ? null : Buffer.concat(chunks);
    chunks.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
    if (at > bytes.length) return null;
  }
}

function requestText({ path, headers }: RangeRequest): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  return [`GET ${path} HTTP/1.1`, ...lines, '', ''].join('\r\n');
}
