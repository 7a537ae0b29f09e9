/** A thread that works on one body after the other; `body-threads.ts` starts and ends it. */
import { strict as assert } from 'node:assert';
import { parentPort } from 'node:worker_threads';
import { ApiError } from '../errors.ts';
import { prepare } from '../inference/prepare.ts';
import { rewriteBody } from '../inference/rewrite-body.ts';
import { sendable } from '../bodies/body-messages.ts';
import type { FromThread, ToThread } from '../bodies/body-messages.ts';

assert(parentPort !== null, 'this module is the entry of a thread');
const port = parentPort;
port.on('message', (message: ToThread) => {
  const answer = answerTo(message);
  const transfer =
    answer.kind === 'prepared'
      ? [answer.prepared.body.buffer]
      : answer.kind === 'rewritten'
        ? [answer.body.buffer]
        : [];
  port.postMessage(answer, transfer);
});

function answerTo(message: ToThread): FromThread {
  const encoder = new TextEncoder();
  try {
    if (message.kind === 'rewrite') {
      const text = new TextDecoder().decode(message.body);
      return { kind: 'rewritten', body: encoder.encode(rewriteBody(text, message.to)) };
    }
    const { body, ...prepared } = prepare(message.input);
    return { kind: 'prepared', prepared: { ...prepared, body: encoder.encode(body) } };
  } catch (error) {
    return error instanceof ApiError
      ? { kind: 'refused', error: sendable(error) }
      : { kind: 'failed', reason: String(error) };
  }
}
