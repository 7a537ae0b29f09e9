/** Tells the client why it was refused, and states the limits on every admitted answer. */
import { ApiError, badKeyError } from '../errors.ts';
import { nearestName } from '../nearest.ts';
import type { PlaceResult } from '../fleet/placement-contract.ts';
import type { RateLimits, Refusal } from '../tenant/admission-contract.ts';
import { noSuchEvent } from '../relay/event-log.ts';
import { formatUsd } from '../money-text.ts';
import { budgetHeader, budgetModeHeader } from './budgets-asked.ts';

export function refusalError(refusal: Refusal, limits: RateLimits | null = null): ApiError {
  const headers = limits ? limitHeaders(limits) : {};
  switch (refusal.kind) {
    case 'bad-key':
      return badKeyError();
    case 'expired-key':
      return new ApiError(
        'expired_api_key',
        `The API key expired at ${new Date(refusal.expiredAtMs).toISOString()}.`,
      );
    case 'model-not-allowed':
      return new ApiError(
        'model_not_allowed',
        `The key may not use the model '${refusal.model}'. It may use: ${refusal.models.join(', ')}.`,
        { param: 'model' },
      );
    case 'budget':
      return budgetError(refusal, headers);
    case 'no-budget':
      return noBudgetError(refusal, budgetHeader);
    case 'no-scope':
      return new ApiError('insufficient_scope', `The key lacks the scope '${refusal.scope}'.`);
    case 'no-balance':
      return new ApiError(
        'insufficient_balance',
        `Insufficient balance: ${mayCost(refusal.neededNanoUsd)}` +
          `${formatUsd(refusal.availableNanoUsd)} USD are available.`,
        { headers },
      );
    case 'limit':
      return new ApiError(
        'rate_limit_exceeded',
        `The ${refusal.of === 'key' ? 'key' : 'account'} has reached its limit of ` +
          `${limitNames[refusal.limit]}.`,
        { headers: { ...headers, 'retry-after': retryAfter(refusal.retryAfterMs) } },
      );
    case 'idempotency-mismatch':
      return new ApiError(
        'idempotency_key_reused',
        'This Idempotency-Key was used for another request.',
      );
    case 'idempotency-no-event':
      return noSuchEvent(refusal.afterEvent);
    case 'idempotency-no-answer':
      return new ApiError(
        'idempotency_no_answer',
        `The request with this Idempotency-Key, ${refusal.requestId}, was billed, and its answer ` +
          'is not kept: it was aborted, or too long.',
      );
  }
}

/**
 * A key that may not use a model of an alias is told so for good, unless it may use one that was
 * passed over: that one may have a worker later.
 */
export function refusedError(
  { alias, unable }: { readonly alias: string | null; readonly unable: readonly string[] },
  { reason, limits }: { readonly reason: Refusal; readonly limits: RateLimits | null },
): ApiError {
  if (reason.kind === 'model-not-allowed') {
    const id = unable.find((each) => reason.models.includes(each));
    if (id !== undefined) return notPlacedError({ model: { id }, alias }, noneIsReady);
  }
  return refusalError(reason, limits);
}

export function noBudgetError(
  { name, nearest }: { readonly name: string; readonly nearest: string | null },
  param: string,
): ApiError {
  const advice = nearest === null ? '' : ` The nearest one is '${nearest}'.`;
  return new ApiError('not_found', `The budget '${name}' does not exist.${advice}`, { param });
}

function budgetError(
  { name, period, leftNanoUsd, neededNanoUsd, resetsAtMs }: Extract<Refusal, { kind: 'budget' }>,
  headers: Readonly<Record<string, string>>,
): ApiError {
  const whose = name === null ? 'of the key' : `'${name}'`;
  const of = period === 'ever' ? '' : ` for the ${period}`;
  const until =
    resetsAtMs === null ? '' : ` It begins anew at ${new Date(resetsAtMs).toISOString()}.`;
  return new ApiError(
    'budget_exhausted',
    `The budget ${whose}${of} has ${formatUsd(leftNanoUsd)} USD left, and the request may cost up ` +
      `to ${formatUsd(neededNanoUsd)} USD.${until} '${budgetModeHeader}: trim' shortens the answer ` +
      'to what is left, where that covers the prompt and a token.',
    {
      headers,
      details: {
        error_code: 'budget_exhausted',
        budget: {
          name,
          window: period,
          left_nano_usd: leftNanoUsd,
          needed_nano_usd: neededNanoUsd,
          resets_at_ms: resetsAtMs,
        },
      },
    },
  );
}

function mayCost(neededNanoUsd: number | null): string {
  return neededNanoUsd === null
    ? ''
    : `the request may cost up to ${formatUsd(neededNanoUsd)} USD, `;
}

/** The request was admitted, and whoever made its answer is gone or on the way. */
export function keyInUseError(): ApiError {
  return new ApiError(
    'idempotency_key_in_use',
    'A request with this Idempotency-Key is not settled yet.',
    { headers: { 'retry-after': '1' } },
  );
}

type NotPlaced = Exclude<PlaceResult, { kind: 'placed' }>;

/** All workers that were asked failed. */
export const noneTookIt: NotPlaced = {
  kind: 'no-worker',
  reason: 'all-refused',
  retryAfterSeconds: 1,
};

const noneIsReady: NotPlaced = { kind: 'no-worker', reason: 'none-ready', retryAfterSeconds: 1 };

/** 429 where waiting would have helped, 503 where nobody is there. */
export function notPlacedError(
  asked: { readonly model: { readonly id: string }; readonly alias: string | null },
  result: NotPlaced,
): ApiError {
  if (result.kind === 'withdrawn') {
    return new ApiError('client_left', 'The client closed the request.');
  }
  const { retryAfterSeconds } = result;
  const { id } = asked.model;
  const model = `the model '${id}'${asked.alias === null ? '' : ` of '${asked.alias}'`}`;
  const headers = { 'retry-after': String(retryAfterSeconds) };
  if (result.kind === 'no-worker') {
    const sentence = noWorkerSentences[result.reason](model);
    return new ApiError('no_worker', `${sentence} Try again later.`, { headers });
  }
  if (result.reason === 'closing') {
    return new ApiError('no_worker', 'The server is restarting. Try again.', { headers });
  }
  const about = retryAfterSeconds === 1 ? 'a second' : `${retryAfterSeconds} seconds`;
  const why =
    result.reason === 'wait'
      ? `All workers of ${model} are busy, and the request would wait for too long`
      : `Too many requests wait for ${model}`;
  return new ApiError('overloaded', `${why}. Try again in about ${about}.`, { headers });
}

const noWorkerSentences = {
  'none-serves': (model: string) => `No worker serves ${model}.`,
  'none-ready': (model: string) => `No worker of ${model} is ready.`,
  'all-refused': (model: string) => `No worker of ${model} could take the request.`,
} as const;

/** @param names those that the caller may use. */
export function modelNotFoundError(asked: string, names: readonly string[]): ApiError {
  const nearest = nearestName(asked, names);
  const advice = nearest === null ? '' : ` The nearest one is '${nearest}'.`;
  return new ApiError('model_not_found', `The model '${asked}' does not exist.${advice}`, {
    param: 'model',
  });
}

const limitNames = {
  requests: 'requests per minute',
  tokens: 'tokens per minute',
  concurrency: 'requests at a time',
} as const;

function retryAfter(ms: number): string {
  return String(Math.max(1, Math.ceil(ms / 1000)));
}

/** The limits as OpenAI writes them. */
export function limitHeaders(limits: RateLimits): Record<string, string> {
  return {
    'x-ratelimit-limit-requests': String(limits.requestsLimit),
    'x-ratelimit-remaining-requests': String(limits.requestsRemaining),
    'x-ratelimit-reset-requests': formatDuration(limits.requestsResetMs),
    'x-ratelimit-limit-tokens': String(limits.tokensLimit),
    'x-ratelimit-remaining-tokens': String(limits.tokensRemaining),
    'x-ratelimit-reset-tokens': formatDuration(limits.tokensResetMs),
  };
}

/** `6m0s`, `1.5s`, `20ms`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  if (ms <= 59_900) return `${Math.ceil(ms / 100) / 10}s`;
  const seconds = Math.ceil(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const rest = `${minutes % 60}m${seconds % 60}s`;
  return minutes >= 60 ? `${Math.floor(minutes / 60)}h${rest}` : rest;
}
