/**
 * Makes the answer of an admitted request out of its worker's events: whole, or as the texts of a
 * stream. Whatever the way, it is settled before its end is given out, and what goes wrong is
 * settled too.
 */
import { shortJson } from '../../gpu-worker/protocol/json-pieces.ts';
import { ApiError, toApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import type { StoredAnswer } from '../tenant/admission-contract.ts';
import type { WholeAnswer } from './running-answers-contract.ts';
import type { AnswerFormat } from '../dialects/answer-format.ts';
import { numberEvents, splitEvents } from '../relay/event-log.ts';
import { noUsage } from '../money.ts';
import { WorkerFailure } from '../relay/worker-stream.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import { eventEncoder, wholeChunk } from './encode-events.ts';
import { describe } from '../middleware/answer-error.ts';
import { confirmedChain } from './prepared-request.ts';
import type { PreparedRequest } from './prepared-request.ts';
import type { RequestSettlement } from './settlement.ts';

/** The longest answer that is kept for replay; the tenant keeps no longer ones. */
const recordedCharactersMax = 1024 * 1024;

export const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  // Stops nginx from collecting the stream before it passes it on.
  'x-accel-buffering': 'no',
};

export interface Making {
  readonly services: Services;
  readonly prepared: PreparedRequest;
  readonly format: AnswerFormat;
  readonly settlement: RequestSettlement;
  readonly events: AsyncGenerator<readonly WorkerEvent[], void>;
  /** It has an Idempotency-Key: its bytes are kept for replay, and its events are numbered. */
  readonly keep: boolean;
}

/** @throws ApiError when there is no answer. */
export async function collectAnswer(answer: Making): Promise<WholeAnswer> {
  const { services, prepared, format, settlement, events, keep } = answer;
  const builder = format.builder();
  try {
    for await (const batch of events) {
      for (const event of batch) {
        if (event.usage) settlement.recordUsage(event.usage);
        builder.add(wholeChunk(event));
      }
    }
    const bill = billOf(services, prepared, settlement);
    const whole: WholeAnswer = {
      json: builder.finish(bill),
      headers: { 'x-sift-cost-nano-usd': String(bill.costNanoUsd) },
    };
    const chain = confirmedChain(prepared, builder.reply());
    const response = builder.stored?.(bill) ?? null;
    await settlement.complete({ chain, answer: keep ? stored(whole) : null, response });
    return whole;
  } catch (error) {
    throw await endInError(services, prepared, settlement, {
      error,
      delivered: false,
      answer: null,
    });
  }
}

/** Writes it down for its replay; null if it is too long. */
function stored({ json, headers }: WholeAnswer): StoredAnswer | null {
  const body = shortJson(json, recordedCharactersMax);
  return body === null ? null : { status: 200, contentType: 'application/json', body, headers };
}

/**
 * An answer that fails once it has begun ends with an event that says so. @throws ApiError before.
 */
export async function* encodeFrames({
  services,
  prepared,
  format,
  settlement,
  events,
  keep,
}: Making): AsyncGenerator<string, void> {
  const encoder = format.encoder();
  const encode = eventEncoder(encoder);
  const builder = format.builder();
  const record = recordEvents(keep);
  let delivered = false;
  try {
    for await (const batch of events) {
      let text = '';
      for (const event of batch) {
        if (event.usage) settlement.recordUsage(event.usage);
        builder.add(wholeChunk(event));
        text += encode(event);
      }
      if (text === '') continue;
      delivered = true;
      yield record.add(text);
    }
    const bill = billOf(services, prepared, settlement);
    const last = encoder.end(bill);
    await settlement.complete({
      chain: confirmedChain(prepared, builder.reply()),
      answer: record.answer(last),
      response: builder.stored?.(bill) ?? null,
    });
    yield record.add(last);
  } catch (thrown) {
    const answer = delivered ? record.answer(encoder.error(brokenAnswer(thrown))) : null;
    const error = await endInError(services, prepared, settlement, {
      error: thrown,
      delivered,
      answer,
    });
    if (!delivered) throw error;
    yield record.add(encoder.error(error));
  }
}

/** Settles a request that failed. @returns what to tell the client. */
async function endInError(
  services: Services,
  prepared: PreparedRequest,
  settlement: RequestSettlement,
  end: {
    readonly error: unknown;
    readonly delivered: boolean;
    readonly answer: StoredAnswer | null;
  },
): Promise<ApiError> {
  const error = brokenAnswer(end.error);
  if (settlement.stop.aborted) {
    await settlement.clientLeft().catch(() => {});
    return new ApiError('client_left', 'The client closed the request.');
  }
  const { requestId } = prepared;
  if (error.status >= 500) {
    const reason = describe(error.cause ?? error);
    services.log('warn', 'answer-failed', { requestId, code: error.code, reason });
  }
  // A settlement that fails was logged; the hold that stays open is settled once it expires.
  await settlement.fail({ ...end, code: error.code }).catch(() => {});
  return error;
}

function brokenAnswer(thrown: unknown): ApiError {
  if (!(thrown instanceof WorkerFailure)) return toApiError(thrown);
  const message = 'The worker failed before the answer was complete.';
  return new ApiError('worker_failed', message, { cause: thrown });
}

/** A worker that never counted is not billed: a count is never made up. */
function billOf(services: Services, prepared: PreparedRequest, settlement: RequestSettlement) {
  const usage = settlement.usage();
  if (usage === null) {
    services.log('warn', 'usage-missing', {
      requestId: prepared.requestId,
      model: prepared.model.id,
    });
  }
  return {
    usage: usage ?? noUsage,
    costNanoUsd: usage === null ? 0 : settlement.cost(usage),
    cacheMissReason: usage && settlement.cacheMissReason(usage),
    stoppedBy: settlement.stoppedBy(),
  };
}

/** The bytes of a stream for its replay; keep-alives are not among them, and have no number. */
function recordEvents(keep: boolean) {
  const texts: string[] = [];
  let characters = 0;
  let events = 0;
  const numbered = (text: string): string => numberEvents(text, events + 1);
  return {
    /** @returns the text as it goes to clients. */
    add(unnumbered: string): string {
      if (!keep) return unnumbered;
      const text = numbered(unnumbered);
      events += splitEvents(text).length;
      characters += text.length;
      if (characters <= recordedCharactersMax) texts.push(text);
      return text;
    },
    /** All that has been added and its end, for the next time; null if that is too long. */
    answer(end: string): StoredAnswer | null {
      const last = numbered(end);
      if (!keep || characters + last.length > recordedCharactersMax) return null;
      const { 'content-type': contentType, ...headers } = streamHeaders;
      return { status: 200, contentType, body: texts.join('') + last, headers };
    },
  };
}
