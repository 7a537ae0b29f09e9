/**
 * Posts to workers by undici's dispatcher, below its fetch: a request costs a fifth of what it
 * costs by `node:http`, and less than a tenth of fetch (docs/benchmarks.md#the-edge).
 */
import { Agent } from 'undici';
import type { Dispatcher } from 'undici';
import type { AnswerBytes, Post, PostedAnswer, PostRequest } from '../relay/post.ts';

/** Node's fetch waits for a connection as long. */
const connectMsMax = 10_000;
const answerMsMax = 300_000;
/** More that nobody has read yet holds the worker back. */
const unreadBytesMax = 64 * 1024;

export function createNodePost(): Post {
  const agent = new Agent({
    connect: { timeout: connectMsMax },
    headersTimeout: answerMsMax,
    // Whoever reads an answer knows how long its worker may be silent.
    bodyTimeout: 0,
  });
  return (url, { headers, body, signal }) => {
    const answer = new Answer(signal);
    const path = url.pathname + url.search;
    agent.dispatch({ origin: url.origin, path, method: 'POST', headers, body }, answer);
    return answer.opened;
  };
}

type Controller = Dispatcher.DispatchController;
type Headers = Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseStart']>>[2];

/** One request and its answer, as undici tells of them. */
class Answer implements Dispatcher.DispatchHandler, AnswerBytes {
  readonly opened: Promise<PostedAnswer>;
  readonly #opening = Promise.withResolvers<PostedAnswer>();
  readonly #signal: PostRequest['signal'];
  readonly #onAbort = (): void => this.#leave();
  #controller: Controller | null = null;
  #unread: Uint8Array[] = [];
  #unreadBytes = 0;
  #waiting: PromiseWithResolvers<Uint8Array | null> | null = null;
  #isLeft = false;
  #hasEnded = false;
  #failure: Error | null = null;

  constructor(signal: AbortSignal) {
    this.opened = this.#opening.promise;
    this.#signal = signal;
    if (signal.aborted) this.#leave();
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#unread.length > 0) return this.#takeUnread();
    if (this.#isLeft || this.#hasEnded) return null;
    if (this.#failure !== null) throw this.#failure;
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  cancel(): void {
    this.#leave();
  }

  /** May be called again for another connection, before anything was answered. */
  onRequestStart(controller: Controller): void {
    this.#controller = controller;
    if (this.#isLeft) this.#abort();
  }

  onResponseStart(_: Controller, status: number, headers: Headers): void {
    // Others announce the answer that is to come.
    if (status < 200) return;
    const header = (name: string): string | null => {
      const value = headers[name];
      return Array.isArray(value) ? value.join(', ') : (value ?? null);
    };
    this.#opening.resolve({ status, header, body: this });
  }

  onResponseData(controller: Controller, piece: Uint8Array): void {
    if (this.#isLeft) return;
    if (this.#waiting !== null) {
      this.#answerReader(piece);
      return;
    }
    this.#unread.push(piece);
    this.#unreadBytes += piece.length;
    if (this.#unreadBytes >= unreadBytesMax) controller.pause();
  }

  onResponseEnd(): void {
    this.#hasEnded = true;
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#answerReader(null);
  }

  onResponseError(_: unknown, error: Error): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#failure = error;
    this.#opening.reject(this.#signal.aborted ? this.#signal.reason : error);
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  #takeUnread(): Uint8Array {
    const pieces = this.#unread;
    this.#unread = [];
    this.#unreadBytes = 0;
    if (this.#controller?.paused) this.#controller.resume();
    return pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : Buffer.concat(pieces);
  }

  #answerReader(piece: Uint8Array | null): void {
    this.#waiting?.resolve(piece);
    this.#waiting = null;
  }

  #leave(): void {
    if (this.#isLeft || this.#hasEnded) return;
    this.#isLeft = true;
    this.#unread = [];
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#opening.reject(this.#signal.reason);
    this.#answerReader(null);
    this.#abort();
  }

  #abort(): void {
    this.#controller?.abort(new Error('nobody reads the answer any more'));
  }
}
