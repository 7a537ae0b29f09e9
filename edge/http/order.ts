/**
 * What a request asks of each stage, worked out before any of them runs: the price in force, the
 * bounds that the hold covers, and the prefix chain.
 */
import { createHash, createHmac } from 'node:crypto';
import { defaultOutputTokens } from '../../gpu-worker/protocol.ts';
import { ApiError } from '../errors.ts';
import { cacheSalt, canonicalBytes, chainOfBytes, prefixRoot } from '../prefix/chain.ts';
import type {
  AdmitInput,
  IdempotentRequest,
  ModelRecord,
  PlaceInput,
  PrefixKey,
  Price,
  Services,
  Turn,
  VerifiedKey,
} from '../services.ts';
import type { InferenceRequest } from './inference-request.ts';
import { heldContext, soldContext } from '../served-contexts.ts';
import { inOthersTerms } from './other-workers.ts';
import { promptBound } from './prompt-bound.ts';
import { modelNotFoundError } from './refusal.ts';

/** Text averages about four bytes per token; only placement goes by it, never the bill. */
const bytesPerToken = 4;

export interface Order {
  readonly request: InferenceRequest;
  readonly requestId: string;
  readonly model: ModelRecord;
  readonly price: Price;
  readonly promptTokensMax: number;
  readonly outputTokensMax: number;
  /** By which our workers know the tenant's requests from others', without its name. */
  readonly fairScope: string;
  readonly prefixBytes: Buffer;
  readonly prefixRoot: Buffer;
  readonly chain: readonly PrefixKey[];
}

/** @throws ApiError 404 without such a model, 503 without a price. */
export async function prepareOrder(
  services: Services,
  input: {
    readonly tenant: string;
    readonly requestId: string;
    readonly request: InferenceRequest;
  },
): Promise<Order> {
  const { request, requestId } = input;
  const { directory, settings, clock } = services;
  const [models, price, served] = await Promise.all([
    directory.models(),
    directory.priceAt(request.model, clock.nowMs()),
    services.servedContexts(request.model),
  ]);
  const listed = models.find((each) => each.id === request.model);
  if (!listed) throw modelNotFoundError(request.model, models);
  const model = { ...listed, contextLength: soldContext(listed, served) };
  if (!price) throw new ApiError('price_missing', `The model '${model.id}' has no price yet.`);

  const root = prefixRoot(settings.cacheSecret, {
    tenant: input.tenant,
    scope: request.cacheScope,
    model: model.id,
    revision: model.revision,
    tokenizer: model.tokenizer,
  });
  const bytes = canonicalBytes(request.promptParts);
  const stated = request.outputTokensStated ?? settings.outputTokensDefault;
  return {
    request,
    requestId,
    model,
    price,
    promptTokensMax: promptBound(request, {
      canonicalBytes: bytes.length,
      contextLength: heldContext(listed, served),
    }),
    outputTokensMax: Math.min(stated, model.contextLength) * request.prompts * request.answersEach,
    fairScope: createHmac('sha256', settings.cacheSecret)
      .update(`fair scope\0${input.tenant}`)
      .digest('base64url'),
    prefixBytes: bytes,
    prefixRoot: root,
    chain: request.prompts === 1 ? chainOfBytes(bytes, root) : [],
  };
}

export function admitInput(
  order: Order,
  input: { readonly key: VerifiedKey; readonly idempotency: AdmitInput['idempotency'] },
): AdmitInput {
  return {
    key: input.key,
    scope: 'inference',
    requestId: order.requestId,
    model: order.model.id,
    price: order.price,
    promptTokensMax: order.promptTokensMax,
    outputTokensMax: order.outputTokensMax,
    prefixChain: order.chain,
    idempotency: input.idempotency,
  };
}

type PrefixHits = readonly { worker: string; epoch: number; bytes: number }[];

export function placeInput(
  order: Order,
  input: {
    readonly prefixHits: PrefixHits;
    readonly exclude: readonly string[];
    readonly turn: Turn;
  },
): PlaceInput {
  return {
    requestId: order.requestId,
    model: order.model.id,
    promptTokens: promptEstimate(order),
    outputTokensMax: order.outputTokensMax,
    prefixHits: input.prefixHits.map(({ bytes, ...at }) => ({ ...at, tokens: tokensIn(bytes) })),
    prefixKey: order.chain[0]?.key ?? null,
    exclude: input.exclude,
    turn: input.turn,
  };
}

/** In tokens, as far as that can be known without a tokenizer. */
export function promptEstimate(order: Order): number {
  return order.request.promptTokens ?? tokensIn(order.prefixBytes.length);
}

export function tokensIn(bytes: number): number {
  return Math.ceil(bytes / bytesPerToken);
}

/** What the worker holds once it has answered: the prompt and, where it is plain, the reply. */
export function confirmedChain(order: Order, reply: object | null): readonly PrefixKey[] {
  if (reply === null || order.request.prompts !== 1) return order.chain;
  const bytes = Buffer.concat([
    order.prefixBytes,
    canonicalBytes([{ kind: 'message', value: reply }]),
  ]);
  return chainOfBytes(bytes, order.prefixRoot);
}

/** The body for a worker; one of ours fits an unstated limit to its context by itself. */
export function workerBody(
  order: Order,
  settings: { readonly outputTokensDefault: number },
  worker: { readonly isSift: boolean; readonly contextLength?: number | null },
): string {
  const { request } = order;
  const unstated = request.outputTokensStated === null;
  const leaveOut = unstated && worker.isSift && settings.outputTokensDefault >= defaultOutputTokens;
  return JSON.stringify({
    ...(worker.isSift ? request.workerBody : inOthersTerms(request.workerBody)),
    // The worker counts the tokens, so that it holds the request to a context that is sold shorter.
    ...(worker.isSift &&
      (worker.contextLength ?? 0) > order.model.contextLength && {
        context_length: order.model.contextLength,
      }),
    ...(!leaveOut && { max_tokens: request.outputTokensStated ?? settings.outputTokensDefault }),
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    cache_salt: cacheSalt(order.prefixRoot),
    ...(worker.isSift && { fair_scope: order.fairScope }),
  });
}

const idempotencyKeyPattern = /^[\x21-\x7e]{1,255}$/;
const eventIdPattern = /^\d{1,9}$/;

/** @throws ApiError 422 for what is no key. */
export function readIdempotencyKey(headers: Headers): string | null {
  const key = headers.get('idempotency-key');
  if (key === null || idempotencyKeyPattern.test(key)) return key;
  throw new ApiError(
    'invalid_value',
    'An Idempotency-Key has 1 to 255 printable ASCII characters without spaces.',
    { param: 'Idempotency-Key' },
  );
}

/** @throws ApiError 422 for a Last-Event-ID that no event of ours has. */
export function readIdempotency(
  key: string | null,
  request: {
    readonly path: string;
    readonly body: Uint8Array;
    readonly stream: boolean;
    readonly headers: Headers;
  },
): IdempotentRequest | null {
  if (key === null) return null;
  const hash = createHash('sha256').update(request.path).update('\0').update(request.body);
  const afterEvent = request.stream ? readLastEventId(request.headers) : 0;
  return { key, requestHash: hash.digest('hex'), afterEvent };
}

function readLastEventId(headers: Headers): number {
  const text = headers.get('last-event-id') ?? '';
  // An event source that has seen no event yet sends an empty one, or none.
  if (text === '') return 0;
  if (eventIdPattern.test(text)) return Number(text);
  throw new ApiError('invalid_value', 'A Last-Event-ID is the number of an event of the answer.', {
    param: 'Last-Event-ID',
  });
}
