/**
 * A request is prepared before any stage runs: the price in force, the bounds that the hold covers,
 * and the prefix chain are worked out, and what each stage is asked follows from them.
 */
import { strict as assert } from 'node:assert';
import { createHmac } from 'node:crypto';
import { defaultOutputTokens } from '../../gpu-worker/protocol/limits.ts';
import { ApiError } from '../errors.ts';
import { canonicalBytes, extendChain } from '../prefix/chain.ts';
import type { PlaceInput, Turn } from '../fleet/placement-contract.ts';
import type { Price } from '../money.ts';
import type { Services } from '../services.ts';
import type { AdmitInput, IdempotentRequest, PrefixKey } from '../tenant/admission-contract.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import { heldContext, soldContext } from '../directory/served-contexts.ts';
import { allowedChains, refuseOthers } from './allowed-models.ts';
import type { AllowedModels } from './allowed-models.ts';
import { refuseLongLogprobs } from './answer-bound.ts';
import type { NamedBudgets } from './budgets-asked.ts';
import { prepareWithStored } from './earlier-items.ts';
import { modelsToPassOver } from './model-names.ts';
import { rewrite, withFields } from '../bodies/body-work.ts';
import type { BodyClient, BodyText } from '../bodies/body-work.ts';
import type { Prepared, PrepareInput } from './prepare.ts';
import type { Body } from '../bodies/read-body.ts';

/** Text averages about four bytes per token; only placement goes by it, never the bill. */
const bytesPerToken = 4;

export interface PreparedRequest extends Omit<Prepared, 'body' | 'requestHash'> {
  readonly tenant: string;
  readonly requestId: string;
  readonly price: Price;
  readonly promptTokensMax: number;
  readonly outputTokensMax: number;
  /** Our workers tell the tenant's requests from others' by it, without its name. */
  readonly fairScope: string;
  readonly body: KeptBody;
}

/** The body for a worker, which is let go as soon as no other worker could be asked. */
export interface KeptBody {
  text(): BodyText;
  /** A second call does nothing. */
  release(): void;
}

/** @param release gives back the bytes that the body has reserved. */
export function keptBody(body: BodyText, release: () => void): KeptBody {
  let kept: BodyText | null = body;
  return {
    text() {
      assert(kept !== null, 'no worker is asked once the body is let go');
      return kept;
    },
    release() {
      kept = null;
      release();
    },
  };
}

/**
 * Reads a request of which the body has arrived.
 * @throws ApiError naming the parameter at fault, 404 without such a model, 503 without a price,
 * 403 where the model is not among those allowed.
 */
export async function prepareRequest(
  services: Services,
  asked: Pick<PrepareInput, 'reader' | 'hashedPath'> &
    BodyClient & {
      readonly requestId: string;
      readonly key: VerifiedKey;
      /** Null leaves it to the default. */
      readonly waitMsMax: number | null;
      /** Models of its alias whose workers did not take the request. */
      readonly passedOver?: readonly string[];
      /** Bounds a request that is not admitted; the admission bounds others. */
      readonly allowed?: AllowedModels;
    },
  body: Body,
): Promise<{ readonly prepared: PreparedRequest; readonly requestHash: string | null }> {
  const { reader, hashedPath, tenant, requestId, allowed = null } = asked;
  const { directory, settings } = services;
  const { cacheSecret, storesUnasked = false } = settings;
  const [models, known] = await Promise.all([directory.models(), directory.aliases()]);
  const aliases = allowedChains(known, allowed);
  const { bytes } = body;
  const waitMsMax = asked.waitMsMax ?? settings.queueMsMax;
  const unable = await modelsToPassOver(services, aliases, { bytes, tenant, waitMsMax });
  const passedOver = [...unable, ...(asked.passedOver ?? [])];
  const names = { models, aliases, passedOver };
  const context = { storesUnasked, earlier: null };
  const input = { bytes, reader, hashedPath, tenant, cacheSecret, context, ...names };
  const { requestHash, ...parts } = await prepareWithStored(services, input, asked);
  refuseOthers(parts.model.id, allowed);
  const bounds = await boundRequest(services, parts);
  refuseLongLogprobs({ ...parts, ...bounds });
  const kept = keptBody(parts.body, body.release);
  const fairScope = createHmac('sha256', cacheSecret)
    .update(`fair scope\0${tenant}`)
    .digest('base64url');
  return {
    prepared: { ...parts, ...bounds, tenant, requestId, fairScope, body: kept },
    requestHash,
  };
}

/** Bounds it by the contexts and the price in force now. @throws ApiError 503 without a price. */
export async function boundRequest(
  services: Pick<Services, 'directory' | 'clock' | 'servedContexts' | 'settings'>,
  { request, model: listed, promptTokensBound }: Omit<Prepared, 'requestHash' | 'body'>,
): Promise<Pick<PreparedRequest, 'model' | 'price' | 'promptTokensMax' | 'outputTokensMax'>> {
  const { directory, clock, settings } = services;
  const [price, served] = await Promise.all([
    directory.priceAt(listed.id, clock.nowMs()),
    services.servedContexts(listed.id),
  ]);
  if (!price) throw new ApiError('price_missing', `The model '${listed.id}' has no price yet.`);
  const model = { ...listed, contextLength: soldContext(listed, served) };
  const { prompts, answersEach, outputTokensStated } = request;
  const stated = outputTokensStated ?? settings.outputTokensDefault;
  return {
    model,
    price,
    promptTokensMax: Math.min(promptTokensBound, heldContext(listed, served) * prompts),
    outputTokensMax: Math.min(stated, model.contextLength) * prompts * answersEach,
  };
}

export function admitInput(
  prepared: PreparedRequest,
  input: {
    readonly key: VerifiedKey;
    readonly idempotency: AdmitInput['idempotency'];
    readonly budgets: NamedBudgets;
    readonly leaseTokens: number;
  },
): AdmitInput {
  const { names, trims } = input.budgets;
  return {
    key: input.key,
    scope: 'inference',
    requestId: prepared.requestId,
    model: prepared.model.id,
    alias: prepared.alias,
    revision: prepared.model.revision,
    price: prepared.price,
    promptTokensMax: prepared.promptTokensMax,
    outputTokensMax: prepared.outputTokensMax,
    lease: { outputTokens: input.leaseTokens },
    budgets: { names, trimTo: trims ? answersOf(prepared) : null },
    prefixChain: chainOf(prepared),
    promptMarks: prepared.trail?.marks ?? null,
    idempotency: input.idempotency,
  };
}

/** The answers that a request has of all its prompts. */
export function answersOf({ request }: Pick<PreparedRequest, 'request'>): number {
  return request.prompts * request.answersEach;
}

/** The request with a lower limit on the output tokens of all its answers together. */
export function trimmed(prepared: PreparedRequest, outputTokensMax: number): PreparedRequest {
  const outputTokensStated = outputTokensMax / answersOf(prepared);
  assert(Number.isInteger(outputTokensStated), 'each answer has the same limit');
  return { ...prepared, outputTokensMax, request: { ...prepared.request, outputTokensStated } };
}

export type PrefixHits = readonly { worker: string; epoch: number; bytes: number }[];

export function placeInput(
  prepared: PreparedRequest,
  input: {
    readonly prefixHits: PrefixHits;
    readonly exclude: readonly string[];
    readonly turn: Turn;
  },
): PlaceInput {
  return {
    requestId: prepared.requestId,
    model: prepared.model.id,
    promptTokens: promptEstimate(prepared),
    outputTokensMax: prepared.outputTokensMax,
    prefixHits: input.prefixHits.map(({ bytes, ...at }) => ({ ...at, tokens: tokensIn(bytes) })),
    prefixKey: chainOf(prepared)[0]?.key ?? null,
    exclude: input.exclude,
    turn: input.turn,
  };
}

/** Estimates the tokens of the prompt, as far as that can be done without a tokenizer. */
export function promptEstimate(prepared: PreparedRequest): number {
  return prepared.request.promptTokens ?? tokensIn(prepared.promptBytes);
}

export function tokensIn(bytes: number): number {
  return Math.ceil(bytes / bytesPerToken);
}

export function chainOf({ chain }: Pick<PreparedRequest, 'chain'>): readonly PrefixKey[] {
  return chain?.keys ?? [];
}

/** The prefix that the worker holds once it has answered: the prompt and, if plain, the reply. */
export function confirmedChain(
  prepared: PreparedRequest,
  reply: object | null,
): readonly PrefixKey[] {
  if (reply === null || prepared.chain === null) return chainOf(prepared);
  return extendChain(prepared.chain, canonicalBytes([{ kind: 'message', value: reply }])).keys;
}

/** The body for a worker; one of ours fits an unstated limit to its context by itself. */
export async function workerBody(
  services: Pick<Services, 'settings' | 'threads'>,
  prepared: PreparedRequest,
  worker: {
    readonly isSift: boolean;
    readonly contextLength?: number | null;
    readonly signal: AbortSignal;
  },
): Promise<BodyText> {
  const { outputTokensDefault } = services.settings;
  const { contextLength } = prepared.model;
  const stated = prepared.request.outputTokensStated;
  const leaveOut = stated === null && worker.isSift && outputTokensDefault >= defaultOutputTokens;
  const body = prepared.body.text();
  const client = { tenant: prepared.tenant, signal: worker.signal };
  const work = { body, to: 'answer-elsewhere' } as const;
  const inTerms = worker.isSift ? body : await rewrite(services, work, client);
  return withFields(inTerms, {
    // The worker counts the tokens, so that it holds the request to a context that is sold shorter.
    ...(worker.isSift &&
      (worker.contextLength ?? 0) > contextLength && { context_length: contextLength }),
    ...(!leaveOut && { max_tokens: stated ?? outputTokensDefault }),
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    cache_salt: prepared.cacheSalt,
    ...(worker.isSift && { fair_scope: prepared.fairScope }),
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
    readonly requestHash: string | null;
    readonly stream: boolean;
    readonly headers: Headers;
  },
): IdempotentRequest | null {
  const { requestHash, stream, headers } = request;
  if (key === null) return null;
  assert(requestHash !== null, 'the request of an idempotency key has a hash');
  return { key, requestHash, afterEvent: stream ? readLastEventId(headers) : 0 };
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
