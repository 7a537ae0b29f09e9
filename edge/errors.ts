/**
 * Every error that a client can see, in one table. Its body is written by the dialect of the path.
 *
 * 400 and 422 divide as DeepSeek's do. 400: the request has not the format that the reference says
 * (no JSON, a parameter missing, unknown, unsupported or of the wrong type), or the model says that
 * it cannot take it. 422: the format is right and a value is not (out of range, two parameters that
 * exclude each other, an idempotency key used for another request).
 */
import type { ErrorStatus } from '../gpu-worker/protocol/errors.ts';
import { unavailable } from '../db/unavailable.ts';
import type { UnavailableReason } from '../db/unavailable.ts';

interface ErrorRow {
  readonly status: ErrorStatus;
  /** The sentence of the reference page about it. */
  readonly means: string;
}

export const errorTable = {
  invalid_json: { status: 400, means: 'The body is not JSON, or not an object.' },
  invalid_type: { status: 400, means: 'A parameter has the wrong type.' },
  missing_required_parameter: { status: 400, means: 'A required parameter is missing.' },
  unknown_parameter: { status: 400, means: 'A parameter that no documentation knows.' },
  unsupported_parameter: {
    status: 400,
    means: 'A known parameter that is not supported; the message says why.',
  },
  invalid_request: { status: 400, means: 'The model cannot take the request.' },
  two_hosts: { status: 400, means: 'The request has two Host headers.' },
  context_length_exceeded: { status: 400, means: 'Prompt and answer do not fit the context.' },
  invalid_api_key: { status: 401, means: 'No valid API key.' },
  expired_api_key: { status: 401, means: 'The API key has expired.' },
  insufficient_balance: { status: 402, means: 'The balance does not cover the request.' },
  budget_exhausted: {
    status: 402,
    means: 'A budget does not cover the request; `details` says which, and what is left of it.',
  },
  insufficient_scope: { status: 403, means: 'The key may not do this.' },
  model_not_allowed: { status: 403, means: 'The key may not use this model.' },
  account_suspended: { status: 403, means: 'The operator has suspended the account.' },
  model_not_found: { status: 404, means: 'There is no such model.' },
  not_found: { status: 404, means: 'There is no such object.' },
  unknown_url: { status: 404, means: 'There is no such route.' },
  method_not_allowed: { status: 405, means: 'The route does not take this method.' },
  body_too_slow: { status: 408, means: 'The body came too slowly, or not to its end.' },
  conflict: { status: 409, means: 'It exists already, or its state does not allow this.' },
  idempotency_key_in_use: {
    status: 409,
    means: 'A request with this idempotency key is not settled yet; ask again.',
  },
  idempotency_no_answer: {
    status: 409,
    means: 'The answer to the request with this idempotency key is not kept, or not that far back.',
  },
  request_too_large: { status: 413, means: 'The body is too large.' },
  unsupported_encoding: { status: 415, means: 'The body is compressed.' },
  invalid_value: { status: 422, means: 'A parameter has a value that is not allowed.' },
  idempotency_key_reused: {
    status: 422,
    means: 'This idempotency key was used for another request.',
  },
  client_left: { status: 499, means: 'The client went away before the answer; nobody sees this.' },
  rate_limit_exceeded: { status: 429, means: 'A limit of the key or the account was reached.' },
  internal_error: { status: 500, means: 'A fault of ours.' },
  worker_failed: { status: 502, means: 'The worker failed before its answer was complete.' },
  overloaded: {
    status: 429,
    means: 'The request would wait for a worker for too long; Retry-After says how long.',
  },
  no_worker: { status: 503, means: 'No worker of the model is there; try again later.' },
  tenant_unavailable: {
    status: 503,
    means: 'The records of the account cannot be used now; try again later.',
  },
  storage_full: {
    status: 503,
    means: 'The server has no space to record requests; try again later.',
  },
  price_missing: { status: 503, means: 'The operator has set no price for the model.' },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

/** The amount by which a request exceeds the context. */
export interface Overflow {
  readonly promptTokens: number;
  /** The output that the request asks for; null if the prompt alone is too long. */
  readonly outputTokens: number | null;
  readonly contextTokens: number;
}

/** A code, for dialects whose errors have no other place for it, and the budget that refuses. */
export interface Details {
  readonly error_code: string;
  readonly budget?: BudgetDetails;
}

export interface BudgetDetails {
  /** null: the key's own. */
  readonly name: string | null;
  readonly window: string;
  readonly left_nano_usd: number;
  readonly needed_nano_usd: number;
  /** null: never. */
  readonly resets_at_ms: number | null;
}

export interface ErrorDetails {
  /** The parameter at fault, such as `messages[0].role`. */
  readonly param?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Stands beside `context_length_exceeded`, as far as the worker tells the numbers. */
  readonly overflow?: Overflow | null;
  /** Clients act on it, beyond the code. */
  readonly details?: Details;
  /** The cause is for the log alone. */
  readonly cause?: unknown;
}

export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: ErrorStatus;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly overflow: Overflow | null;
  readonly details: ErrorDetails['details'];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'ApiError';
    this.code = code;
    this.status = errorTable[code].status;
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
    this.overflow = details.overflow ?? null;
    this.details = details.details;
  }
}

/** One body for all keys that do not work, so that it tells nobody which keys exist. */
export function badKeyError(): ApiError {
  return new ApiError('invalid_api_key', 'Incorrect API key provided.');
}

interface UnavailableAnswer {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryAfterSeconds: number;
}

const lost: UnavailableAnswer = {
  code: 'tenant_unavailable',
  message: 'The records of the account cannot be read; its operator has to put them back.',
  retryAfterSeconds: 60,
};

/** The answer to a request that needs a database which cannot be used. */
export const unavailableAnswers: Record<UnavailableReason, UnavailableAnswer> = {
  locked: {
    code: 'tenant_unavailable',
    message: 'The records that this request needs are locked for a moment; try again.',
    retryAfterSeconds: 1,
  },
  full: {
    code: 'storage_full',
    message: 'The server has no space left to record requests; try again later.',
    retryAfterSeconds: 10,
  },
  failing: {
    code: 'tenant_unavailable',
    message: "The server's disk fails to keep records; try again later.",
    retryAfterSeconds: 10,
  },
  missing: lost,
  damaged: lost,
  foreign: lost,
};

/**
 * Makes an ApiError of anything thrown. Messages that were not meant for clients stay in its cause.
 */
export function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  const found = unavailable(thrown);
  if (found !== null && (found.passes || found.reason === 'failing')) {
    const { code, message, retryAfterSeconds } = unavailableAnswers[found.reason];
    const headers = { 'retry-after': String(retryAfterSeconds) };
    return new ApiError(code, message, { headers, cause: thrown });
  }
  return new ApiError('internal_error', 'The server failed to answer this request.', {
    cause: thrown,
  });
}
