/**
 * Counts the tokens that a request's prompt would have. Only a worker has the tokenizer, so one is
 * asked; nothing is held or billed.
 */
import type { TokenCountRoute } from '../dialects/dialect.ts';
import type { Services } from '../services.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import { countPrompt } from '../relay/count-prompt.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { allowedModels } from './allowed-models.ts';
import { authenticate, checkBeforeBody, checkTenant } from './authenticate.ts';
import { rewrite } from '../bodies/body-work.ts';
import type { BodyText } from '../bodies/body-work.ts';
import { prepareRequest } from './prepared-request.ts';
import type { PreparedRequest } from './prepared-request.ts';
import { readBody } from '../bodies/read-body.ts';
import type { Body } from '../bodies/read-body.ts';
import { limitHeaders, noneTookIt, notPlacedError, refusalError } from './refusal.ts';
import { finishFlight, tokenFor } from './settlement.ts';
import type { Placed } from './settlement.ts';

const workerTriesMax = 3;
/** A prompt of a million tokens takes some seconds. */
const countMsMax = 30_000;

export async function answerTokenCount(
  c: AppContext,
  services: Services,
  route: TokenCountRoute,
): Promise<Response> {
  const key = authenticate(c, services);
  await checkBeforeBody(c, services, { key, idempotencyKey: null, isFree: true });
  const { bodyBytesMax: bytesMax } = services.settings;
  const body = await readBody(c, services, { owner: key.tenant, bytesMax });
  return await answerCount(c, services, { key, body, route }).finally(body.release);
}

async function answerCount(
  c: AppContext,
  services: Services,
  asked: { readonly key: VerifiedKey; readonly body: Body; readonly route: TokenCountRoute },
): Promise<Response> {
  const { key, body, route } = asked;
  const signal = AbortSignal.any([c.req.raw.signal, AbortSignal.timeout(countMsMax)]);
  const { tenant } = key;
  const requestId = c.get('requestId');
  await checkTenant(services, tenant);
  const allowed = await allowedModels(services, key);
  const sent = {
    reader: route.name,
    hashedPath: null,
    tenant,
    key,
    requestId,
    waitMsMax: null,
    signal,
    allowed,
  };
  const { prepared } = await prepareRequest(services, sent, body);
  const { refusal, limits } = await services.tenant(key.tenant).admitFree(key, 'inference');
  if (refusal) throw refusalError(refusal, limits);
  const counted = await countOnWorker(services, prepared, signal);
  return c.json(route.toAnswer(counted ?? prepared.promptTokensMax), 200, {
    'x-sift-token-count': counted === null ? 'upper-bound' : 'exact',
    ...(limits && limitHeaders(limits)),
  });
}

/**
 * null if the worker cannot count. @throws ApiError if no worker answers or the request is at
 * fault.
 */
async function countOnWorker(
  services: Services,
  prepared: PreparedRequest,
  signal: AbortSignal,
): Promise<number | null> {
  const { requestId } = prepared;
  const exclude: string[] = [];
  while (exclude.length < workerTriesMax) {
    const place = await services.fleet.place({
      requestId,
      model: prepared.model.id,
      // Next to nothing beside what is computed for an answer.
      promptTokens: 0,
      outputTokensMax: 0,
      prefixHits: [],
      exclude,
      turn: null,
    });
    if (place.kind !== 'placed') throw notPlacedError(prepared, place);
    try {
      const count = await countPrompt({
        post: services.post,
        url: place.url,
        token: tokenFor(place, services),
        requestId,
        body: await tokenizeBody(services, { prepared, place, signal }),
        isSift: place.hasJournal,
        signal,
      });
      if (count.kind === 'counted') return count.tokens;
      if (count.kind === 'cannot-count') return null;
      if (count.kind === 'rejected') throw count.error;
      services.log('warn', 'worker-refused', {
        requestId,
        worker: place.worker,
        reason: count.reason,
      });
    } finally {
      finishFlight(services, { requestId, worker: place.worker });
    }
    exclude.push(place.worker);
  }
  throw notPlacedError(prepared, noneTookIt);
}

function tokenizeBody(
  services: Services,
  { prepared, place, signal }: { prepared: PreparedRequest; place: Placed; signal: AbortSignal },
): Promise<BodyText> {
  const to = place.hasJournal ? 'count' : 'count-elsewhere';
  const work = { body: prepared.body.text(), to } as const;
  return rewrite(services, work, { tenant: prepared.tenant, signal });
}
