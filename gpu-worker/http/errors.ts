/** Every error that a client can see, in one table, and OpenAI's shape around it. */
import type { ErrorBody } from '../protocol/errors.ts';
import type { Health } from '../protocol/heartbeat.ts';

interface ErrorRow {
  readonly status: 400 | 401 | 404 | 405 | 409 | 413 | 415 | 429 | 500 | 503;
  readonly type: string;
}

const errorTable = {
  invalid_json: { status: 400, type: 'invalid_request_error' },
  invalid_type: { status: 400, type: 'invalid_request_error' },
  invalid_value: { status: 400, type: 'invalid_request_error' },
  missing_required_parameter: { status: 400, type: 'invalid_request_error' },
  unknown_parameter: { status: 400, type: 'invalid_request_error' },
  unsupported_parameter: { status: 400, type: 'invalid_request_error' },
  request_too_complex: { status: 400, type: 'invalid_request_error' },
  context_length_exceeded: { status: 400, type: 'invalid_request_error' },
  invalid_api_key: { status: 401, type: 'authentication_error' },
  model_not_found: { status: 404, type: 'invalid_request_error' },
  request_not_found: { status: 404, type: 'invalid_request_error' },
  unknown_url: { status: 404, type: 'invalid_request_error' },
  method_not_allowed: { status: 405, type: 'invalid_request_error' },
  request_id_in_use: { status: 409, type: 'invalid_request_error' },
  request_too_large: { status: 413, type: 'invalid_request_error' },
  unsupported_media_type: { status: 415, type: 'invalid_request_error' },
  engine_busy: { status: 429, type: 'rate_limit_error' },
  internal_error: { status: 500, type: 'server_error' },
  not_ready: { status: 503, type: 'server_error' },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

interface ErrorDetails {
  /** The parameter at fault, such as `messages[0].role`. */
  readonly param?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly overflow?: ErrorBody['error']['overflow'];
}

export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: ErrorRow['status'];
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly overflow: ErrorBody['error']['overflow'];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message);
    this.code = code;
    this.status = errorTable[code].status;
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
    this.overflow = details.overflow;
  }

  body(): ErrorBody {
    const { message, param, code, overflow } = this;
    const { type } = errorTable[code];
    return { error: { message, type, param, code, ...(overflow && { overflow }) } };
  }
}

/** For a worker that takes no requests now. */
export function notReady(status: Health['status'], reason: string): ApiError {
  return new ApiError('not_ready', `the worker is ${status}: ${reason}`, {
    headers: { 'retry-after': status === 'starting' ? '2' : '10' },
  });
}

/** Anything thrown, as an ApiError. What was not meant for clients does not reach them. */
export function toApiError(thrown: unknown): ApiError {
  return thrown instanceof ApiError
    ? thrown
    : new ApiError('internal_error', 'the worker failed to answer; its log says why');
}
