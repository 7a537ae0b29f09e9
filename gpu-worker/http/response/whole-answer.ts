/** A whole answer as JSON; a long one is written as its client reads it. */
import type { Context } from 'hono';
import { writeJson } from '../../protocol/json-pieces.ts';
import type { AppEnv } from '../worker-services.ts';

const encoder = new TextEncoder();
const headers = { 'content-type': 'application/json' };

export function answerWhole(c: Context<AppEnv>, answer: object): Response {
  const written = writeJson(answer);
  if (typeof written === 'string') return c.body(written, 200, headers);
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await written.next();
        if (next.done) controller.close();
        else controller.enqueue(encoder.encode(next.value));
      },
    },
    { highWaterMark: 0 },
  );
  return c.body(body, 200, headers);
}
