/**
 * Finds a worker for an admitted request, up to the first events of its answer. While no worker has
 * said anything, one that refuses or dies only means that the next-best one is asked.
 */
import { secretsOf } from '../engines/error-message.ts';
import { ApiError } from '../errors.ts';
import type { PlaceResult, Turn } from '../fleet/placement-contract.ts';
import type { RequestRecord } from '../observe/request-record.ts';
import { openWorker } from '../relay/open-worker.ts';
import type { WorkerAnswer } from '../relay/open-worker.ts';
import type { AnswerBytes } from '../relay/post.ts';
import { readWorkerStream, WorkerFailure } from '../relay/worker-stream.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import type { Services } from '../services.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { answerBytesMax } from './answer-bound.ts';
import type { GrowingHold } from './growing-hold.ts';
import { chainOf, placeInput, workerBody } from './prepared-request.ts';
import type { PrefixHits, PreparedRequest } from './prepared-request.ts';
import { noneTookIt, notPlacedError } from './refusal.ts';
import { finishFlight, tokenFor } from './settlement.ts';
import type { Placed, RequestSettlement } from './settlement.ts';

/** Workers asked, one after the other, before any byte of an answer has reached the client. */
const workerTriesMax = 3;
/** Three comments of a worker of ours are missing then; the protocol has one come every 10 s. */
const workerSilenceMsMax = 30_000;
/** Foreign engines say nothing while they compute a long prompt. */
const silenceMsMaxWithoutComments = 600_000;

export interface AdmittedRequest {
  readonly prepared: PreparedRequest;
  readonly tenant: Tenant;
  readonly prefixHits: PrefixHits;
  readonly turn: Turn;
  readonly settlement: RequestSettlement;
  readonly hold: GrowingHold;
  readonly record: RequestRecord;
  /** The answer states the count of each event. */
  readonly statesEachCount: boolean;
  /** Is called once a worker has taken the request. */
  readonly accept: () => void;
}

/** An answer that has begun. */
export interface Flight {
  readonly first: readonly WorkerEvent[];
  readonly rest: AsyncGenerator<readonly WorkerEvent[], void>;
}

type Opened =
  | { readonly kind: 'answers'; readonly flight: Flight }
  | Extract<WorkerAnswer, { kind: 'refused' }>
  | { readonly kind: 'died'; readonly reason: string };

/** @throws ApiError if no worker takes the request or it is at fault. */
export async function placeAndOpen(services: Services, request: AdmittedRequest): Promise<Flight> {
  const { prepared, settlement, prefixHits } = request;
  const { requestId } = prepared;
  const { clock, fleet } = services;
  const exclude: string[] = [];
  const deadlineMs = clock.nowMs() + request.turn.waitMsMax;
  let busyWorker: string | null = null;
  let busySeconds = 0;
  let lacking: ApiError | null = null;
  const withdraw = (): void => services.keepAlive(fleet.withdraw(requestId).catch(() => {}));
  settlement.stop.addEventListener('abort', withdraw, { once: true });

  while (exclude.length < workerTriesMax) {
    settlement.stop.throwIfAborted();
    const leftMs = Math.max(0, deadlineMs - clock.nowMs());
    const waitMsMax = Math.min(request.turn.waitMsMax, leftMs);
    const turn = { ...request.turn, waitMsMax, busyWorker };
    const place = await fleet.place(placeInput(prepared, { prefixHits, exclude, turn }));
    if (place.kind !== 'placed') {
      throw lacking ?? notPlacedError(prepared, atLeast(place, busySeconds));
    }
    const opened = await open(services, request, place);
    if (opened.kind === 'answers') return opened.flight;

    const { worker } = place;
    services.log('warn', 'worker-refused', { requestId, worker, reason: opened.reason });
    settlement.recordPlacement(null);
    busyWorker = opened.kind === 'refused' && opened.isFull ? worker : null;
    if (opened.kind === 'refused') {
      busySeconds = opened.retryAfterSeconds ?? 0;
      lacking = opened.error;
    }
    if (busyWorker !== null) continue;
    finishFlight(services, { requestId, worker });
    exclude.push(worker);
  }
  throw lacking ?? notPlacedError(prepared, atLeast(noneTookIt, busySeconds));
}

/** Sends the request to the worker that it was placed on. @throws ApiError if it is at fault. */
async function open(services: Services, request: AdmittedRequest, place: Placed): Promise<Opened> {
  const { prepared, settlement, tenant } = request;
  const { requestId } = prepared;
  const { worker, epoch } = place;
  settlement.recordPlacement(place);
  if (settlement.stop.aborted) {
    finishFlight(services, { requestId, worker });
    settlement.stop.throwIfAborted();
  }
  // Only our own workers are sure to count as they go, and to say what they computed if we end.
  if (!place.hasJournal) await request.hold.holdWhole();
  const workerUrl = place.hasJournal ? place.url : null;
  // A journal is of use only to a hold that names it.
  const durable = prepared.request.stream || place.hasJournal;
  const chain = chainOf(prepared);
  // The disk and the worker are waited for at once.
  const [answer] = await Promise.all([
    send(services, request, place),
    tenant.placed({ requestId, worker, epoch, workerUrl, chain, durable }),
  ]);
  if (answer.kind === 'rejected') throw answer.error;
  if (answer.kind === 'refused') return answer;
  request.accept();
  return await readFirst(services, request, { place, body: answer.body });
}

async function send(
  services: Services,
  { prepared, settlement, record }: AdmittedRequest,
  place: Placed,
): Promise<WorkerAnswer> {
  const signal = settlement.stop;
  return await openWorker({
    post: services.post,
    url: place.url,
    path: prepared.request.workerPath,
    token: tokenFor(place, services),
    requestId: prepared.requestId,
    traceHeaders: record.traceHeaders,
    body: await workerBody(services, prepared, {
      isSift: place.hasJournal,
      contextLength: place.contextLength,
      signal,
    }),
    signal,
  });
}

/** @throws ApiError if the request is at fault, or the reason of a client that left. */
async function readFirst(
  services: Services,
  { prepared, settlement, statesEachCount }: AdmittedRequest,
  { place, body }: { readonly place: Placed; readonly body: AnswerBytes },
): Promise<Opened> {
  const { requestId, request } = prepared;
  const { worker } = place;
  const rest = readWorkerStream(body, {
    kind: request.workerPath === '/v1/completions' ? 'text' : 'chat',
    requestId,
    stops: request.stops,
    answers: request.prompts * request.answersEach,
    joinsTexts: !statesEachCount,
    onDone: () => settlement.recordJournalled(),
    reportsCachedTokens: place.reportsCachedTokens,
    secrets: secretsOf(place.url, tokenFor(place, services)),
    signal: settlement.stop,
    bytesMax: answerBytesMax(prepared),
    silenceMsMax:
      services.settings.workerSilenceMsMax ??
      (place.hasJournal ? workerSilenceMsMax : silenceMsMaxWithoutComments),
  });
  try {
    const read = await rest.next();
    if (read.done) return { kind: 'answers', flight: { first: [], rest } };
    if (!place.hasJournal) refuseLongerPrompt(prepared, read.value);
    services.keepAlive(services.fleet.started(requestId, worker).catch(() => {}));
    // From here on no other worker could be asked.
    prepared.body.release();
    return { kind: 'answers', flight: { first: read.value, rest } };
  } catch (error) {
    await rest.return();
    finishFlight(services, { requestId, worker });
    if (settlement.stop.aborted || !(error instanceof WorkerFailure)) throw error;
    return { kind: 'died', reason: error.message };
  }
}

/**
 * A foreign engine knows its own context alone, which may be longer than the one sold.
 * @throws ApiError context_length_exceeded
 */
function refuseLongerPrompt(
  { model, request }: PreparedRequest,
  events: readonly WorkerEvent[],
): void {
  const usage = events.find((event) => event.usage !== null)?.usage;
  if (!usage) return;
  const promptTokens = usage.inputUncached + (usage.inputCached ?? 0);
  const { contextLength: contextTokens } = model;
  if (promptTokens <= contextTokens * request.prompts) return;
  throw new ApiError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextTokens} tokens. However, the prompt has ` +
      `${promptTokens} tokens. Please reduce its length.`,
    { overflow: { promptTokens, outputTokens: null, contextTokens } },
  );
}

/** A worker that refuses knows better than the edge when it is worth asking again. */
function atLeast<Result extends Exclude<PlaceResult, { kind: 'placed' }>>(
  result: Result,
  seconds: number,
): Result {
  if (!('retryAfterSeconds' in result)) return result;
  return { ...result, retryAfterSeconds: Math.max(result.retryAfterSeconds, seconds) };
}
