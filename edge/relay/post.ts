/**
 * This contract says how a request is posted to a worker and how the bytes of its answer are read.
 * A runtime has a `Post` of its own where one costs less than fetch.
 */

export type Post = (url: URL, request: PostRequest) => Promise<PostedAnswer>;

export interface PostRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array<ArrayBuffer>;
  /** Ends the request and its answer. */
  readonly signal: AbortSignal;
}

/** A redirect is an answer like any other. */
export interface PostedAnswer {
  readonly status: number;
  /** @param name in lower case. */
  header(name: string): string | null;
  readonly body: AnswerBytes;
}

export interface AnswerBytes {
  /**
   * Resolves with what has arrived, and with null at the end. While nobody reads, the sender is
   * held back. Rejects once the connection breaks.
   */
  read(): Promise<Uint8Array | null>;
  /** Lets go of the sender; a read that waits gets null. */
  cancel(): void;
}

/** A `Post` of any runtime that has fetch. */
export function postBy(fetch: typeof globalThis.fetch): Post {
  return async (url, request) => {
    const response = await fetch(url, { ...request, method: 'POST', redirect: 'manual' });
    return {
      status: response.status,
      header: (name) => response.headers.get(name),
      body: bytesOf(response.body),
    };
  };
}

export function bytesOf(body: ReadableStream<Uint8Array> | null): AnswerBytes {
  const reader = body?.getReader();
  return {
    async read() {
      const read = await reader?.read();
      return read?.value ?? null;
    },
    cancel: () => void reader?.cancel().catch(() => {}),
  };
}

/** The pieces up to the end; leaving the loop lets go of the sender. */
export async function* piecesOf(bytes: AnswerBytes): AsyncGenerator<Uint8Array, void> {
  try {
    for (let piece = await bytes.read(); piece !== null; piece = await bytes.read()) yield piece;
  } finally {
    bytes.cancel();
  }
}
