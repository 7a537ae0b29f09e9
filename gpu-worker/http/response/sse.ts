/**
 * Server-sent events out of a generator of chunks. The answer's status stays open until the first
 * chunk or the first keep-alive, so that a refusal by the engine is still an HTTP error; afterwards
 * an error is an event. Chunks are pulled as the client reads them.
 */
import type { Context } from 'hono';
import { toApiError } from '../api-error.ts';
import type { AppEnv, WorkerServices } from '../worker-services.ts';

const encoder = new TextEncoder();
const keepAlive = encoder.encode(': keep-alive\n\n');
const done = encoder.encode('data: [DONE]\n\n');

/**
 * Answers with the chunks as events, then `[DONE]`, which a stream lacks whose usage is not on the
 * journal's disk.
 * @throws what the generator throws before its first chunk.
 */
export async function streamEvents(
  c: Context<AppEnv>,
  services: WorkerServices,
  chunks: AsyncGenerator<object, void>,
): Promise<Response> {
  const context = c.get('context');
  const { keepAliveMs } = services.settings;
  let next = chunks.next();
  const first = await chunkWithin(next, keepAliveMs);
  if (first.kind === 'failure') throw first.error;

  context.isStreaming = true;
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const found = await chunkWithin(next, keepAliveMs);
        // The client may have left meanwhile; then the controller is closed, and `cancel` sees to
        // it.
        if (cancelled) return;
        switch (found.kind) {
          case 'nothing yet':
            controller.enqueue(keepAlive);
            break;
          case 'chunk':
            controller.enqueue(encodeEvent(found.chunk));
            next = chunks.next();
            // It is awaited by the next pull; until then a failure is nobody's.
            next.catch(() => {});
            break;
          case 'end':
            // It tells an edge that the journal has the usage, should the edge lose it.
            if (context.run?.isJournalled) controller.enqueue(done);
            controller.close();
            context.end(200);
            break;
          case 'failure': {
            const error = toApiError(found.error);
            if (error !== found.error) {
              services.logger.error({ requestId: context.id, err: found.error }, 'stream failed');
            }
            controller.enqueue(encodeEvent(error.body()));
            controller.close();
            context.end(error.status);
          }
        }
      },
      async cancel() {
        cancelled = true;
        context.stop.abort();
        // The generator stops the engine and settles the journal on its way out.
        await next.then(() => chunks.return()).catch(() => {});
        context.end(200);
      },
    },
    { highWaterMark: 0 },
  );
  return c.body(body, 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // Stops nginx from collecting the stream before it passes it on.
    'x-accel-buffering': 'no',
  });
}

function encodeEvent(value: object): Uint8Array {
  return encoder.encode(`data: ${JSON.stringify(value)}\n\n`);
}

type Found =
  | { readonly kind: 'chunk'; readonly chunk: object }
  | { readonly kind: 'end' }
  | { readonly kind: 'failure'; readonly error: unknown }
  | { readonly kind: 'nothing yet' };

/** Waits that long for what the generator yields next. */
async function chunkWithin(
  next: Promise<IteratorResult<object, void>>,
  ms: number,
): Promise<Found> {
  const found = next.then(
    (result): Found => (result.done ? { kind: 'end' } : { kind: 'chunk', chunk: result.value }),
    (error: unknown): Found => ({ kind: 'failure', error }),
  );
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<Found>((resolve) => {
    timer = setTimeout(() => resolve({ kind: 'nothing yet' }), ms);
  });
  try {
    return await Promise.race([found, silence]);
  } finally {
    clearTimeout(timer);
  }
}
