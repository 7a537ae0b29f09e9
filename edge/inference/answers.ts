/**
 * Brings an answer to its clients. Without an Idempotency-Key it is made for one client and ends
 * with it. With one it is made whether or not its client stays, and all who send the request again
 * read along: paid once.
 */
import { writeJson } from '../../gpu-worker/protocol/json-pieces.ts';
import { ApiError, toApiError } from '../errors.ts';
import type { AnswerFormat } from '../dialects/answer-format.ts';
import type { RunningAnswer, WholeAnswer } from './running-answers-contract.ts';
import type { Services } from '../services.ts';
import type { StoredAnswer } from '../tenant/admission-contract.ts';
import { eventBody, settledWithin } from '../relay/event-body.ts';
import { eventsAfter, splitEvents } from '../relay/event-log.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import { collectAnswer, encodeFrames, streamHeaders } from './make-answer.ts';
import type { Making } from './make-answer.ts';
import type { PreparedRequest } from './prepared-request.ts';
import { keyInUseError } from './refusal.ts';

/** The default of the setting. Proxies give up on a silent answer after a minute or so. */
const wholeAnswerQuietMsDefault = 15_000;
/** A client that reads nothing for this long keeps a worker from others; it is taken for gone. */
const clientStallMsMax = 120_000;

/** The client that gets the answer. */
export interface Client {
  readonly services: Services;
  /** The request as this client sent it. */
  readonly prepared: PreparedRequest;
  readonly format: AnswerFormat;
  /** The client has the events up to this one. */
  readonly afterEvent: number;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
  /** Nothing of an answer is sent before this resolves. */
  readonly accepted: Promise<void>;
  /** Headers of this answer alone, beside those of its kind. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Writes the answer of an admitted request, and settles it. @throws ApiError when there is no
 * answer.
 */
export async function writeAnswer(
  making: Omit<Making, 'keep'> & { readonly running: RunningAnswer | null },
  client: Client,
): Promise<Response> {
  const { running, settlement } = making;
  const leave = (): void => void settlement.clientLeft().catch(() => {});
  if (running === null) {
    onAbort(client.signal, leave);
    const made = { ...making, keep: false };
    return client.prepared.request.stream
      ? await answerStream(encodeFrames(made), client, leave)
      : await answerWhole(collectAnswer(made), client, leave);
  }
  // The client is counted before the answer is made, which would else be nobody's.
  const response = follow(running, client);
  const events = counted(making.events, running);
  making.services.keepAlive(makeFor(running, { ...making, events, keep: true }));
  running.runs(leave);
  return await response;
}

/** Gives the answer that is being made to one more client. @throws ApiError when there is none. */
export async function attach(running: RunningAnswer | null, client: Client): Promise<Response> {
  if (running === null) throw keyInUseError();
  return await follow(running, { ...client, headers: { ...replayed, ...client.headers } });
}

/** The answer from the store. @throws ApiError when it has no such event. */
export function replay(answer: StoredAnswer, { afterEvent, headers }: Client): Response {
  const body = eventsAfter(answer.body, afterEvent);
  return respond({ ...answer, body }, { ...replayed, ...headers });
}

const replayed = { 'idempotent-replayed': 'true' };

/** Passes on the events of an answer, and tells it how many tokens they are. */
async function* counted(
  events: Making['events'],
  running: RunningAnswer,
): AsyncGenerator<readonly WorkerEvent[], void> {
  for await (const batch of events) {
    const usage = batch.findLast((event) => event.usage !== null)?.usage;
    if (usage) running.counts(usage.outputText + usage.outputReasoning);
    yield batch;
  }
}

/** Makes the answer until it is settled, whoever is there. */
async function makeFor(running: RunningAnswer, making: Making): Promise<void> {
  const { whole, log } = running;
  try {
    if (making.prepared.request.stream) {
      for await (const text of encodeFrames(making)) await log.append(splitEvents(text));
      log.end();
    } else {
      whole.resolve(await collectAnswer(making));
    }
  } catch (error) {
    log.fail(error);
    whole.reject(error);
  } finally {
    running.over();
  }
}

async function follow(running: RunningAnswer, client: Client): Promise<Response> {
  const left = new AbortController();
  const quit = running.join();
  const leave = (): void => {
    quit();
    left.abort(new ApiError('client_left', 'The client closed the request.'));
  };
  onAbort(client.signal, leave);
  try {
    return client.prepared.request.stream
      ? await answerStream(running.log.read(client.afterEvent, left.signal), client, leave)
      : await answerWhole(unlessLeft(running.whole.promise, left.signal), client, leave);
  } catch (error) {
    leave();
    throw error;
  }
}

/**
 * The whole answer at once, with its cost as a header and an honest status. One that takes long
 * once a worker has it begins with empty lines, as DeepSeek's do, which keep proxies from giving
 * up. If it then fails, the connection breaks.
 */
async function answerWhole(
  whole: Promise<WholeAnswer>,
  { services, headers, accepted }: Client,
  onLeave: () => void,
): Promise<Response> {
  const { keepAliveMs, wholeAnswerQuietMs = wholeAnswerQuietMsDefault } = services.settings;
  await Promise.race([whole, accepted]);
  const inPieces = (frames: AsyncGenerator<string, void>): ReadableStream<Uint8Array> =>
    eventBody(frames, frames.next(), {
      keepAliveMs,
      stallMsMax: clientStallMsMax,
      keepAlive: '\n',
      onLeave,
    });
  const type = { 'content-type': 'application/json' };
  if (await settledWithin(whole, wholeAnswerQuietMs)) {
    const answer = await whole;
    const json = writeJson(answer.json);
    return new Response(typeof json === 'string' ? json : inPieces(json), {
      headers: { ...type, ...answer.headers, ...headers },
    });
  }
  return new Response(inPieces(written(whole)), { headers: { ...type, ...headers } });
}

async function* written(whole: Promise<WholeAnswer>): AsyncGenerator<string, void> {
  const json = writeJson((await whole).json);
  if (typeof json === 'string') yield json;
  else yield* json;
}

/**
 * The status stays open until the first frame or, once a worker has the request, the first
 * keep-alive; from then on an error is an event.
 */
async function answerStream(
  frames: AsyncGenerator<string, void>,
  { services, format, headers, accepted }: Client,
  onLeave: () => void,
): Promise<Response> {
  const { keepAliveMs } = services.settings;
  const encoder = format.encoder();
  const first = frames.next();
  await Promise.race([first, accepted]);
  await settledWithin(first, keepAliveMs);
  const body = eventBody(frames, first, {
    keepAliveMs,
    stallMsMax: clientStallMsMax,
    keepAlive: encoder.keepAlive,
    onError: (thrown) => encoder.error(toApiError(thrown)),
    onLeave,
  });
  return new Response(body, { headers: { ...streamHeaders, ...headers } });
}

function respond(
  { status, contentType, body, headers }: StoredAnswer,
  more: Readonly<Record<string, string>>,
): Response {
  return new Response(body, {
    status,
    headers: { 'content-type': contentType, ...headers, ...more },
  });
}

function onAbort(signal: AbortSignal, act: () => void): void {
  if (signal.aborted) act();
  else signal.addEventListener('abort', act, { once: true });
}

/** @throws the signal's reason when it comes first. */
async function unlessLeft<Value>(value: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const left = Promise.withResolvers<never>();
  onAbort(signal, () => left.reject(signal.reason));
  return await Promise.race([value, left.promise]);
}
