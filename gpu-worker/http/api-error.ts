/** Every error that a client can see, in one table, and OpenAI's shape around it. */
import { openAiErrorTypes } from '../protocol/errors.ts';
import type { ErrorBody, ErrorStatus } from '../protocol/errors.ts';
import type { Health } from '../protocol/heartbeat.ts';

const errorStatuses = {
  invalid_json: 400,
  invalid_type: 400,
  invalid_value: 400,
  missing_required_parameter: 400,
  unknown_parameter: 400,
  unsupported_parameter: 400,
  request_too_complex: 400,
  context_length_exceeded: 400,
  invalid_api_key: 401,
  model_not_found: 404,
  request_not_found: 404,
  unknown_url: 404,
  method_not_allowed: 405,
  request_id_in_use: 409,
  request_too_large: 413,
  unsupported_media_type: 415,
  engine_busy: 429,
  internal_error: 500,
  not_ready: 503,
} as const satisfies Record<string, ErrorStatus>;

export type ErrorCode = keyof typeof errorStatuses;

interface ErrorDetails {
  /** The parameter at fault, such as `messages[0].role`. */
  readonly param?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly overflow?: ErrorBody['error']['overflow'];
}

export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: (typeof errorStatuses)[ErrorCode];
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly overflow: ErrorBody['error']['overflow'];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message);
    this.code = code;
    this.status = errorStatuses[code];
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
    this.overflow = details.overflow;
  }

  body(): ErrorBody {
    const { message, param, code, status, overflow } = this;
    const type = openAiErrorTypes[status];
    return { error: { message, type, param, code, ...(overflow && { overflow }) } };
  }
}

/** Refuses a request of a worker that takes none now. */
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
