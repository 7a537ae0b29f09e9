/**
 * How an answer reaches its client: whole, streamed or from the store. Whatever the way, it is
 * settled before its end is given out, and what goes wrong is settled too.
 */
import { ApiError, toApiError } from '../errors.ts';
import type { Services, StoredAnswer } from '../services.ts';
import { eventBody, settledWithin } from '../stream/event-body.ts';
import { noUsage } from '../stream/usage-formats.ts';
import { WorkerFailure, type WorkerEvent } from '../stream/worker-stream.ts';
import { describe } from './answer-error.ts';
import { confirmedChain, type Order } from './order.ts';
import type { Ending } from './settlement.ts';

/** Unless the settings say otherwise; proxies give up on a silent answer after a minute or so. */
const wholeAnswerQuietMsDefault = 15_000;
/** A client that reads nothing for this long keeps a worker from others; it is taken for gone. */
const clientStallMsMax = 120_000;
/** What idempotency keeps of a stream; the tenant keeps no longer ones. */
const recordedCharactersMax = 1024 * 1024;

export interface Answer {
  readonly services: Services;
  readonly order: Order;
  readonly ending: Ending;
  readonly events: AsyncGenerator<readonly WorkerEvent[], void>;
  /** Whether its bytes are kept for replay. */
  readonly keep: boolean;
  /** Of this answer alone, beside those of its kind. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * The whole answer at once, with its cost as a header and an honest status. One that takes long
 * begins with empty lines, as DeepSeek's do, which keep proxies from giving up. If it then fails, the
 * connection breaks.
 */
export async function answerWhole(answer: Answer): Promise<Response> {
  const { services, ending } = answer;
  const whole = collectAnswer(answer);
  const { keepAliveMs, wholeAnswerQuietMs = wholeAnswerQuietMsDefault } = services.settings;
  if (await settledWithin(whole, wholeAnswerQuietMs)) return respond(await whole, answer.headers);
  const frames = (async function* () {
    yield (await whole).body;
  })();
  const body = eventBody(frames, frames.next(), {
    keepAliveMs,
    stallMsMax: clientStallMsMax,
    keepAlive: '\n',
    onLeave: () => void ending.left().catch(() => {}),
  });
  return new Response(body, {
    headers: { 'content-type': 'application/json', ...answer.headers },
  });
}

async function collectAnswer(answer: Answer): Promise<StoredAnswer> {
  const { services, order, ending, events, keep } = answer;
  const { answer: format, model } = order.request;
  const builder = format.builder({ id: format.idPrefix + order.requestId, model });
  try {
    for await (const batch of events) {
      for (const { chunk, usage } of batch) {
        if (usage) ending.saw(usage);
        builder.add(chunk);
      }
    }
    const bill = billOf(services, order, ending);
    const stored: StoredAnswer = {
      status: 200,
      contentType: 'application/json',
      body: JSON.stringify(builder.finish(bill)),
      headers: { 'x-sift-cost-nano-usd': String(bill.costNanoUsd) },
    };
    const chain = confirmedChain(order, builder.reply());
    await ending.done({ chain, answer: keep ? stored : null });
    return stored;
  } catch (error) {
    throw await endInError(services, order, ending, { error, delivered: false, answer: null });
  }
}

/** The status stays open until the first frame or keep-alive; from then on an error is an event. */
export async function answerStream(answer: Answer): Promise<Response> {
  const { services, order, ending } = answer;
  const { answer: format, model } = order.request;
  const head = { id: format.idPrefix + order.requestId, model };
  const encoder = format.encoder(head, order.requestId);
  const open = { answered: false };
  const frames = encodeFrames(answer, { encoder, builder: format.builder(head), open });
  const first = frames.next();
  const { keepAliveMs } = services.settings;
  await settledWithin(first, keepAliveMs);
  open.answered = true;
  const body = eventBody(frames, first, {
    keepAliveMs,
    stallMsMax: clientStallMsMax,
    keepAlive: encoder.keepAlive,
    onLeave: () => void ending.left().catch(() => {}),
  });
  return new Response(body, { headers: { ...streamHeaders, ...answer.headers } });
}

const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  // Stops nginx from collecting the stream before it passes it on.
  'x-accel-buffering': 'no',
};

async function* encodeFrames(
  { services, order, ending, events, keep }: Answer,
  writing: {
    readonly encoder: ReturnType<Order['request']['answer']['encoder']>;
    readonly builder: ReturnType<Order['request']['answer']['builder']>;
    readonly open: { readonly answered: boolean };
  },
): AsyncGenerator<string, void> {
  const { encoder, builder, open } = writing;
  const record = recordFrames(keep);
  let delivered = false;
  try {
    for await (const batch of events) {
      let text = '';
      for (const { chunk, usage } of batch) {
        if (usage) ending.saw(usage);
        builder.add(chunk);
        text += encoder.chunk(chunk, usage);
      }
      if (text === '') continue;
      record.add(text);
      delivered = true;
      yield text;
    }
    const last = encoder.end(billOf(services, order, ending));
    record.add(last);
    await ending.done({
      chain: confirmedChain(order, builder.reply()),
      answer: record.answer(),
    });
    yield last;
  } catch (thrown) {
    const text = (error: ApiError) => encoder.error(error);
    if (delivered) record.add(text(brokenAnswer(thrown)));
    const answer = delivered ? record.answer() : null;
    const error = await endInError(services, order, ending, { error: thrown, delivered, answer });
    if (!open.answered) throw error;
    yield text(error);
  }
}

/** Settles a request that failed. @returns what to tell the client. */
async function endInError(
  services: Services,
  order: Order,
  ending: Ending,
  end: {
    readonly error: unknown;
    readonly delivered: boolean;
    readonly answer: StoredAnswer | null;
  },
): Promise<ApiError> {
  const error = brokenAnswer(end.error);
  if (ending.stop.aborted) {
    await ending.left().catch(() => {});
    return new ApiError('client_left', 'The client closed the request.');
  }
  const { requestId } = order;
  if (error.status >= 500) {
    const reason = describe(error.cause ?? error);
    services.log({ event: 'answer-failed', requestId, code: error.code, reason });
  }
  // A settlement that fails was logged; the hold that stays open is settled once it expires.
  await ending.failed(end).catch(() => {});
  return error;
}

function brokenAnswer(thrown: unknown): ApiError {
  if (!(thrown instanceof WorkerFailure)) return toApiError(thrown);
  const message = 'The worker failed before the answer was complete.';
  return new ApiError('worker_failed', message, { cause: thrown });
}

/** A worker that never counted is not billed: a count is never made up. */
function billOf(services: Services, order: Order, ending: Ending) {
  const usage = ending.usage();
  if (usage === null) {
    services.log({ event: 'usage-missing', requestId: order.requestId, model: order.model.id });
  }
  return { usage: usage ?? noUsage, costNanoUsd: usage === null ? 0 : ending.cost(usage) };
}

/** The bytes of a stream for its replay; keep-alives are not among them. */
function recordFrames(keep: boolean) {
  const frames: string[] = [];
  let characters = 0;
  return {
    add(text: string): void {
      characters += text.length;
      if (keep && characters <= recordedCharactersMax) frames.push(text);
    },
    answer(): StoredAnswer | null {
      if (!keep || characters > recordedCharactersMax) return null;
      const { 'content-type': contentType, ...headers } = streamHeaders;
      return { status: 200, contentType, body: frames.join(''), headers };
    },
  };
}

export function replay(answer: StoredAnswer, more: Readonly<Record<string, string>>): Response {
  return respond(answer, { 'idempotent-replayed': 'true', ...more });
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
