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
import type { AnswerFormat } from '../dialects/answer-format.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { RequestRecord } from '../observe/request-record.ts';
import type { InferenceRoute } from '../dialects/dialect.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { newRequestId, requestIdHeaders } from '../middleware/request-id.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import type { Services } from '../services.ts';
import type { AdmitResult } from '../tenant/admission-contract.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { admit } from './admit-request.ts';
import { attach, replay, writeAnswer } from './answers.ts';
import type { Client } from './answers.ts';
import { authenticate, checkBeforeBody, checkTenant } from './authenticate.ts';
import { ApiError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { readBudgets } from './budgets-asked.ts';
import { endWithHold } from './end-with-hold.ts';
import { GrowingHold, leaseTokensDefault } from './growing-hold.ts';
import { chainsIn } from './model-names.ts';
import { placeAndOpen } from './place-and-open.ts';
import type { AdmittedRequest, Flight } from './place-and-open.ts';
import {
  admitInput,
  answersOf,
  prepareRequest,
  readIdempotency,
  readIdempotencyKey,
  trimmed,
} from './prepared-request.ts';
import type { PreparedRequest } from './prepared-request.ts';
import { limitHeaders, notPlacedError, refusedError } from './refusal.ts';
import { createRequestSettlement } from './settlement.ts';
import type { RequestSettlement } from './settlement.ts';
import type { RunningAnswer } from './running-answers-contract.ts';
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
  return error instanceof ApiError && notTaken.has(error.code);
}

/** Another model of the alias may have a worker, or be one that the key may use. */
const notTaken: ReadonlySet<ErrorCode> = new Set(['no_worker', 'overloaded', 'model_not_allowed']);

async function answerOnce(c: AppContext, services: Services, attempt: Attempt): Promise<Response> {
  const { key, idempotencyKey, body, route, waitMsMax, passedOver } = attempt;
  const requestId = c.get('requestId');
  const { headers, signal } = c.req.raw;
  const hashedPath = idempotencyKey === null ? null : c.req.path;
  const about = { reader: route.name, hashedPath, tenant: key.tenant, key, requestId };
  const sent = { ...about, waitMsMax, passedOver, signal };
  const record = c.get('record');
  const budgets = readBudgets(headers);
  const [{ prepared: asked, requestHash }, owner] = await Promise.all([
    prepareRequest(services, sent, body),
    checkTenant(services, key.tenant),
  ]);
  const { alias, model } = asked;
  if (asked.standIns > 0) attempt.model = model.id;
  const { stream, answer } = asked.request;
  record.note({ model: model.id, alias, stream });
  const format = route.format(answer, { requestId, model: model.id });
  const idempotency = readIdempotency(idempotencyKey, { requestHash, stream, headers });

  if (idempotency === null) {
    // Nothing is held for what is refused at once; under a key there may be an answer already.
    const turn = turnOf(asked, { record: owner, waitMsMax, priority: 'normal' });
    const refused = await services.fleet.expectedRefusal({ model: model.id, turn });
    if (refused !== null) throw notPlacedError(asked, refused);
  }
  const tenant = services.tenant(key.tenant);
  const leaseTokens = (services.settings.leaseTokens ?? leaseTokensDefault) * answersOf(asked);
  const input = admitInput(asked, { key, idempotency, budgets, leaseTokens });
  const { admission, running } = await admit(services, tenant, input);
  if (admission.kind === 'refused') throw refusedError(asked, admission);

  const { promise: accepted, resolve: accept } = running?.accepted ?? Promise.withResolvers<void>();
  const afterEvent = idempotency?.afterEvent ?? 0;
  const ownHeaders = {
    ...requestIdHeaders(c),
    ...(alias !== null && { 'x-sift-model-alias': alias }),
  };
  const client = { services, format, afterEvent, signal, accepted, headers: ownHeaders };
  if (admission.kind !== 'admitted') {
    asked.body.release();
    record.note({ outcome: 'replayed' });
    const again = { ...client, prepared: asked };
    if (admission.kind === 'replay') return replay(admission.answer, again);
    return await attach(running, again);
  }
  const admitted = { asked, admission, tenant, format, running, leaseTokens, accept };
  const asks = { owner, keyId: key.keyId, waitMsMax, record };
  return await answerAdmitted(services, { ...admitted, ...asks }, client);
}

interface Admitted {
  /** The request as it was asked for; its answer may be cut. */
  readonly asked: PreparedRequest;
  readonly admission: Extract<AdmitResult, { kind: 'admitted' }>;
  readonly tenant: Tenant;
  readonly owner: TenantRecord;
  readonly keyId: string;
  readonly format: AnswerFormat;
  readonly running: RunningAnswer | null;
  readonly leaseTokens: number;
  readonly waitMsMax: number;
  readonly record: RequestRecord;
  readonly accept: () => void;
}

async function answerAdmitted(
  services: Services,
  admitted: Admitted,
  client: Omit<Client, 'prepared'>,
): Promise<Response> {
  const { asked, admission, tenant, format, leaseTokens, waitMsMax, record } = admitted;
  const { prefixHits, seenPrompt, priority, weight, outputTokensMax } = admission;
  const isCut = outputTokensMax < asked.outputTokensMax;
  const prepared = isCut ? trimmed(asked, outputTokensMax) : asked;
  const { price, requestId } = prepared;
  const hold = new GrowingHold(services, { tenant, requestId, price, leaseTokens, admission });
  const held = { prepared, tenant, hold, prefixHits, seenPrompt, record };
  const settlement = createRequestSettlement(services, held);
  const ofKey = { key: admitted.keyId, keyWeight: weight };
  const turn = turnOf(prepared, { record: admitted.owner, waitMsMax, priority, ...ofKey });
  const events = placeAndRelay(services, {
    ...held,
    turn,
    settlement,
    statesEachCount: prepared.request.stream && format.statesEachCount,
    accept: admitted.accept,
  });
  const headers = {
    ...client.headers,
    ...limitHeaders(admission.limits),
    ...(isCut && { 'x-sift-max-tokens': String(prepared.request.outputTokensStated) }),
  };
  return await writeAnswer(
    { services, prepared, format, settlement, events, running: admitted.running },
    { ...client, prepared, headers },
  );
}

/** Begins when the first events are asked for: from then on keep-alives may reach the client. */
async function* placeAndRelay(
  services: Services,
  request: AdmittedRequest,
): AsyncGenerator<readonly WorkerEvent[], void> {
  const flight = await placeAndOpen(services, request);
  request.record.reach('began');
  const events = relay(flight, request.settlement);
  const { hold, prepared } = request;
  if (hold.isWhole) return yield* events;
  const kind = prepared.request.workerPath === '/v1/completions' ? 'text' : 'chat';
  const answers = { kind, count: answersOf(prepared), price: prepared.price } as const;
  yield* endWithHold(events, hold, answers);
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
