/**
 * The way of a request, of chat completions and of every other inference route:
 *
 *     authenticate -> admit -> place -> relay -> settle
 *
 * Until a request is admitted it costs nothing and an error is all that happens. From then on a hold
 * is open, and `settlement` settles it exactly once: when the answer is complete, when the client leaves
 * (one with an Idempotency-Key may come back) or when no worker can answer. What follows is the
 * path of an answer; `settlement` is in settlement.ts.
 */
import { secretsOf } from '../engines/error-message.ts';
import { ApiError } from '../errors.ts';
import type { PlaceResult, Turn } from '../fleet/placement-contract.ts';
import type { Services } from '../services.ts';
import type { AdmitResult } from '../tenant/admission-contract.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import { openWorker } from '../relay/open-worker.ts';
import { readWorkerStream, WorkerFailure, type WorkerEvent } from '../relay/worker-stream.ts';
import { admit } from './admit-request.ts';
import { readWaitMs, turnOf } from './turn.ts';
import { answerBytesMax } from './answer-bound.ts';
import { answerAdmitted, attach, replay } from './answers.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { authenticate, checkBeforeBody, checkTenant } from './authenticate.ts';
import {
  admitInput,
  chainOf,
  placeInput,
  readIdempotency,
  readIdempotencyKey,
  prepareRequest,
  workerBody,
  type PreparedRequest,
} from './prepared-request.ts';
import type { InferenceRoute } from '../dialects/dialect.ts';
import { readBody, type Body } from '../bodies/read-body.ts';
import { limitHeaders, noneTookIt, notPlacedError, refusalError } from './refusal.ts';
import { requestIdHeaders } from '../middleware/request-id.ts';
import {
  createRequestSettlement,
  finishFlight,
  tokenFor,
  type RequestSettlement,
  type Placed,
} from './settlement.ts';

/** Workers asked, one after the other, before any byte of an answer has reached the client. */
const workerTriesMax = 3;
/** Unless the settings say otherwise; the protocol has workers comment every 10 s. */
const workerSilenceMsMax = 30_000;
/** Foreign engines say nothing while they compute a long prompt. */
const silenceMsMaxWithoutComments = 600_000;
type Admitted = Extract<AdmitResult, { kind: 'admitted' }>;

export async function answerInference(
  c: AppContext,
  services: Services,
  route: InferenceRoute,
): Promise<Response> {
  const key = authenticate(c, services);
  const idempotencyKey = readIdempotencyKey(c.req.raw.headers);
  if (idempotencyKey !== null && services.forwardKeyed !== null) {
    const { tenant, keyId } = key;
    const forwarded = await services.forwardKeyed({ tenant, keyId, idempotencyKey }, c.req.raw);
    c.set('answerHasId', true);
    return forwarded;
  }
  await checkBeforeBody(c, services, { key, idempotencyKey, isFree: false });
  const { bodyBytesMax: bytesMax } = services.settings;
  const body = await readBody(c, services, { owner: key.tenant, bytesMax });
  try {
    return await answerBody(c, services, { key, idempotencyKey, body, route });
  } catch (error) {
    body.release();
    throw error;
  }
}

async function answerBody(
  c: AppContext,
  services: Services,
  asked: {
    readonly key: VerifiedKey;
    readonly idempotencyKey: string | null;
    readonly body: Body;
    readonly route: InferenceRoute;
  },
): Promise<Response> {
  const { key, route, idempotencyKey } = asked;
  const requestId = c.get('requestId');
  const { headers, signal } = c.req.raw;
  const waitMsMax = readWaitMs(headers) ?? services.settings.queueMsMax;
  const hashedPath = idempotencyKey === null ? null : c.req.path;
  const sent = { reader: route.name, hashedPath, tenant: key.tenant, requestId, signal };
  const [{ prepared, requestHash }, record] = await Promise.all([
    prepareRequest(services, sent, asked.body),
    checkTenant(services, key.tenant),
  ]);
  const { stream, model, answer } = prepared.request;
  const format = route.format(answer, { requestId, model });
  const idempotency = readIdempotency(idempotencyKey, { requestHash, stream, headers });

  if (idempotency === null) {
    // Nothing is held for what is refused at once; under a key there may be an answer already.
    const turn = turnOf(prepared, { record, waitMsMax, priority: 'normal' });
    const refused = await services.fleet.expectedRefusal({ model: prepared.model.id, turn });
    if (refused !== null) throw notPlacedError(prepared.model.id, refused);
  }
  const tenant = services.tenant(key.tenant);
  const input = admitInput(prepared, { key, idempotency });
  const { admission, running } = await admit(services, tenant, input);
  if (admission.kind === 'refused') throw refusalError(admission.reason, admission.limits);
  if (admission.kind !== 'admitted') prepared.body.release();
  const afterEvent = idempotency?.afterEvent ?? 0;
  const accepted = running?.accepted ?? Promise.withResolvers<void>();
  const client = {
    services,
    prepared,
    format,
    afterEvent,
    signal,
    accepted: accepted.promise,
    headers: requestIdHeaders(c),
  };
  let response: Response;
  if (admission.kind === 'replay') response = replay(admission.answer, client);
  else if (admission.kind === 'running') response = await attach(running, client);
  else {
    const limits = limitHeaders(admission.limits);
    const limited = { ...client, headers: { ...client.headers, ...limits } };
    const settlement = createRequestSettlement(services, { prepared, tenant, ...admission });
    const turn = turnOf(prepared, { record, waitMsMax, priority: admission.priority });
    const accept = accepted.resolve;
    const events = relay(services, { prepared, admission, settlement, tenant, turn, accept });
    response = await answerAdmitted(
      { services, prepared, format, settlement, events, running },
      limited,
    );
  }
  c.set('answerHasId', true);
  return response;
}

/**
 * Waits until the request has its turn and a worker, and passes on that worker's events. While nothing
 * has been passed on, a worker that refuses or dies only means that the next-best one is asked.
 * @throws ApiError if no worker takes it or it is at fault; WorkerFailure once events were passed on.
 */
async function* relay(
  services: Services,
  run: {
    readonly prepared: PreparedRequest;
    readonly admission: Admitted;
    readonly settlement: RequestSettlement;
    readonly tenant: ReturnType<Services['tenant']>;
    readonly turn: Turn;
    /** Called once a worker has taken it. */
    readonly accept: () => void;
  },
): AsyncGenerator<readonly WorkerEvent[], void> {
  const { prepared, admission, settlement, tenant } = run;
  const { requestId } = prepared;
  const chain = chainOf(prepared);
  const { fleet, settings } = services;
  const { prefixHits } = admission;
  const exclude: string[] = [];
  const deadlineMs = services.clock.nowMs() + run.turn.waitMsMax;
  let busyWorker: string | null = null;
  let busySeconds = 0;
  let lacking: ApiError | null = null;
  const withdraw = (): void => services.keepAlive(fleet.withdraw(requestId).catch(() => {}));
  settlement.stop.addEventListener('abort', withdraw, { once: true });

  while (exclude.length < workerTriesMax) {
    settlement.stop.throwIfAborted();
    const waitMsMax = Math.min(
      run.turn.waitMsMax,
      Math.max(0, deadlineMs - services.clock.nowMs()),
    );
    const turn = { ...run.turn, waitMsMax, busyWorker };
    const place = await fleet.place(placeInput(prepared, { prefixHits, exclude, turn }));
    if (place.kind !== 'placed') {
      throw lacking ?? notPlacedError(prepared.model.id, atLeast(place, busySeconds));
    }

    const { worker, epoch } = place;
    const workerUrl = place.hasJournal ? place.url : null;
    settlement.recordPlacement(place);
    if (settlement.stop.aborted) {
      finishFlight(services, { requestId, worker });
      settlement.stop.throwIfAborted();
    }
    const durable = prepared.request.stream;
    // The disk and the worker are waited for at once.
    const remembered = tenant.placed({ requestId, worker, epoch, workerUrl, chain, durable });
    const [opened] = await Promise.all([
      openOn(services, place, prepared, settlement.stop),
      remembered,
    ]);
    if (opened.kind === 'rejected') throw opened.error;

    let reason = opened.kind === 'refused' ? opened.reason : '';
    if (opened.kind === 'open') {
      run.accept();
      let started = false;
      try {
        for await (const events of readWorkerStream(opened.body, {
          ...dialectOf(prepared, place, services),
          signal: settlement.stop,
          bytesMax: answerBytesMax(prepared),
          silenceMsMax:
            settings.workerSilenceMsMax ??
            (place.hasJournal ? workerSilenceMsMax : silenceMsMaxWithoutComments),
        })) {
          if (!started && !place.hasJournal) refuseLongerPrompt(prepared, events);
          if (!started) services.keepAlive(fleet.started(requestId, worker).catch(() => {}));
          started = true;
          prepared.body.release();
          yield events;
        }
        return;
      } catch (error) {
        if (started || settlement.stop.aborted || !(error instanceof WorkerFailure)) throw error;
        reason = error.message;
      } finally {
        // The slot is free as soon as the worker is done, before the answer is settled.
        finishFlight(services, { requestId, worker, usage: settlement.usage() });
      }
    }
    services.log('warn', 'worker-refused', { requestId, worker, reason });
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
  throw lacking ?? notPlacedError(prepared.model.id, atLeast(noneTookIt, busySeconds));
}

/** A worker that refuses knows better than we when it is worth to ask again. */
function atLeast<Result extends Exclude<PlaceResult, { kind: 'placed' }>>(
  result: Result,
  seconds: number,
): Result {
  if (!('retryAfterSeconds' in result)) return result;
  return { ...result, retryAfterSeconds: Math.max(result.retryAfterSeconds, seconds) };
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

/** What of the request decides how the events of its answer are read. */
function dialectOf({ request, requestId }: PreparedRequest, place: Placed, services: Services) {
  return {
    kind: request.workerPath === '/v1/completions' ? ('text' as const) : ('chat' as const),
    requestId,
    stops: request.stops,
    answers: request.prompts * request.answersEach,
    reportsCachedTokens: place.reportsCachedTokens,
    secrets: secretsOf(place.url, tokenFor(place, services)),
  };
}

async function openOn(
  services: Services,
  place: Placed,
  prepared: PreparedRequest,
  signal: AbortSignal,
) {
  return openWorker({
    fetch: services.fetch,
    url: place.url,
    path: prepared.request.workerPath,
    token: tokenFor(place, services),
    requestId: prepared.requestId,
    body: await workerBody(services, prepared, {
      isSift: place.hasJournal,
      contextLength: place.contextLength,
      signal,
    }),
    signal,
  });
}
