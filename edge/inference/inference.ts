/**
 * The way of a request, in every dialect (docs/design.md#flow-of-a-request):
 *
 *     authenticate -> admit -> place -> relay -> settle
 *
 * Until a request is admitted it costs nothing and an error is all that happens. From then on a
 * hold is open, and its `RequestSettlement` settles it exactly once: when the answer is complete,
 * when the client leaves (one with an Idempotency-Key may come back) or when no worker can answer.
 */
import { readBody } from '../bodies/read-body.ts';
import type { Body } from '../bodies/read-body.ts';
import type { InferenceRoute } from '../dialects/dialect.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { newRequestId, requestIdHeaders } from '../middleware/request-id.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import type { Services } from '../services.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import { admit } from './admit-request.ts';
import { attach, replay, writeAnswer } from './answers.ts';
import { authenticate, checkBeforeBody, checkTenant } from './authenticate.ts';
import { ApiError } from '../errors.ts';
import { chainsIn } from './model-names.ts';
import { placeAndOpen } from './place-and-open.ts';
import type { AdmittedRequest, Flight } from './place-and-open.ts';
import {
  admitInput,
  prepareRequest,
  readIdempotency,
  readIdempotencyKey,
} from './prepared-request.ts';
import { limitHeaders, notPlacedError, refusalError } from './refusal.ts';
import { createRequestSettlement } from './settlement.ts';
import type { RequestSettlement } from './settlement.ts';
import { readWaitMs, turnOf } from './turn.ts';

interface Received {
  readonly key: VerifiedKey;
  readonly idempotencyKey: string | null;
  readonly body: Body;
  readonly route: InferenceRoute;
}

export async function answerInference(
  c: AppContext,
  services: Services,
  route: InferenceRoute,
): Promise<Response> {
  const key = authenticate(c, services);
  const idempotencyKey = readIdempotencyKey(c.req.raw.headers);
  const { tenant, keyId } = key;
  const forwarded =
    idempotencyKey === null
      ? null
      : (services.forwardKeyed?.({ tenant, keyId, idempotencyKey }, c) ?? null);
  if (forwarded !== null) c.set('isForwarded', true);
  const response = await (forwarded ?? answerHere(c, services, { key, idempotencyKey, route }));
  c.set('answerHasId', true);
  return response;
}

async function answerHere(
  c: AppContext,
  services: Services,
  asked: Omit<Received, 'body'>,
): Promise<Response> {
  const { key, idempotencyKey } = asked;
  await checkBeforeBody(c, services, { key, idempotencyKey, isFree: false });
  const { bodyBytesMax: bytesMax } = services.settings;
  const body = await readBody(c, services, { owner: key.tenant, bytesMax });
  try {
    return await answerBody(c, services, { ...asked, body });
  } catch (error) {
    body.release();
    throw error;
  }
}

/**
 * An alias of several models: if no worker takes the request for one, the next one is tried, as a
 * request of its own, for nothing of an answer has been sent.
 */
async function answerBody(
  c: AppContext,
  services: Services,
  received: Received,
): Promise<Response> {
  const { body } = received;
  const { clock, directory } = services;
  const waitMsMax = readWaitMs(c.req.raw.headers) ?? services.settings.queueMsMax;
  const deadlineMs = clock.nowMs() + waitMsMax;
  const hasChain = chainsIn(body.bytes, await directory.aliases()).length > 0;
  // The bytes of a large body are gone once it has been read.
  const bytes = hasChain ? body.bytes.slice() : null;
  const passedOver: string[] = [];
  for (let attempt: Attempt = { ...received, waitMsMax, passedOver, model: null }; ;) {
    try {
      return await answerOnce(c, services, attempt);
    } catch (error) {
      if (bytes === null || attempt.model === null || !wasNotTaken(error)) throw error;
      passedOver.push(attempt.model);
      c.set('requestId', newRequestId(services));
      const leftMs = Math.min(waitMsMax, Math.max(0, deadlineMs - clock.nowMs()));
      const again = { ...body, bytes: bytes.slice() };
      attempt = { ...received, body: again, waitMsMax: leftMs, passedOver, model: null };
    }
  }
}

interface Attempt extends Received {
  readonly waitMsMax: number;
  readonly passedOver: readonly string[];
  /** The model that it is tried on, once that is known and others may stand in for it. */
  model: string | null;
}

function wasNotTaken(error: unknown): boolean {
  return error instanceof ApiError && (error.code === 'no_worker' || error.code === 'overloaded');
}

async function answerOnce(c: AppContext, services: Services, attempt: Attempt): Promise<Response> {
  const { key, idempotencyKey, body, route, waitMsMax, passedOver } = attempt;
  const requestId = c.get('requestId');
  const { headers, signal } = c.req.raw;
  const hashedPath = idempotencyKey === null ? null : c.req.path;
  const about = { reader: route.name, hashedPath, tenant: key.tenant, key, requestId };
  const sent = { ...about, waitMsMax, passedOver, signal };
  const record = c.get('record');
  const [{ prepared, requestHash }, owner] = await Promise.all([
    prepareRequest(services, sent, body),
    checkTenant(services, key.tenant),
  ]);
  if (prepared.standIns > 0) attempt.model = prepared.model.id;
  const { alias } = prepared;
  record.note({ model: prepared.model.id, alias, stream: prepared.request.stream });
  const { stream, answer } = prepared.request;
  const format = route.format(answer, { requestId, model: prepared.model.id });
  const idempotency = readIdempotency(idempotencyKey, { requestHash, stream, headers });

  if (idempotency === null) {
    // Nothing is held for what is refused at once; under a key there may be an answer already.
    const turn = turnOf(prepared, { record: owner, waitMsMax, priority: 'normal' });
    const refused = await services.fleet.expectedRefusal({ model: prepared.model.id, turn });
    if (refused !== null) throw notPlacedError(prepared, refused);
  }
  const tenant = services.tenant(key.tenant);
  const input = admitInput(prepared, { key, idempotency });
  const { admission, running } = await admit(services, tenant, input);
  if (admission.kind === 'refused') throw refusalError(admission.reason, admission.limits);

  const { promise: accepted, resolve: accept } = running?.accepted ?? Promise.withResolvers<void>();
  const afterEvent = idempotency?.afterEvent ?? 0;
  const ownHeaders = {
    ...requestIdHeaders(c),
    ...(alias !== null && { 'x-sift-model-alias': alias }),
  };
  const client = { services, prepared, format, afterEvent, signal, accepted, headers: ownHeaders };
  if (admission.kind !== 'admitted') {
    prepared.body.release();
    record.note({ outcome: 'replayed' });
    if (admission.kind === 'replay') return replay(admission.answer, client);
    return await attach(running, client);
  }
  const { holdNanoUsd, prefixHits, seenPrompt, priority } = admission;
  const held = { prepared, tenant, holdNanoUsd, prefixHits, seenPrompt, record };
  const settlement = createRequestSettlement(services, held);
  const turn = turnOf(prepared, { record: owner, waitMsMax, priority });
  const events = placeAndRelay(services, {
    prepared,
    tenant,
    prefixHits,
    turn,
    settlement,
    record,
    statesEachCount: stream && format.statesEachCount,
    accept,
  });
  return await writeAnswer(
    { services, prepared, format, settlement, events, running },
    { ...client, headers: { ...ownHeaders, ...limitHeaders(admission.limits) } },
  );
}

/** Begins when the first events are asked for: from then on keep-alives may reach the client. */
async function* placeAndRelay(
  services: Services,
  request: AdmittedRequest,
): AsyncGenerator<readonly WorkerEvent[], void> {
  const flight = await placeAndOpen(services, request);
  request.record.reach('began');
  yield* relay(flight, request.settlement);
}

/**
 * Passes on the events of a worker that answers.
 * @throws WorkerFailure if it dies: what was passed on cannot be taken back.
 */
async function* relay(
  { first, rest }: Flight,
  settlement: RequestSettlement,
): AsyncGenerator<readonly WorkerEvent[], void> {
  try {
    yield first;
    yield* rest;
  } finally {
    await rest.return();
    // The slot is free as soon as the worker is done, before the answer is settled.
    settlement.endFlight(settlement.usage());
  }
}
