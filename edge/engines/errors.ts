/**
 * Reads the error of an engine, in the answer to a request or as an event of a stream, and tells
 * the request's fault, which its client hears of, from the engine's, for which another worker is
 * tried.
 */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { cleanMessage } from './error-message.ts';
import type { Secrets } from './error-message.ts';
import { isOverflow, readOverflow } from './overflow.ts';

const fieldsSchema = z.looseObject({
  message: z.string(),
  type: z.string().nullish().catch(null),
  param: z.string().nullish().catch(null),
  /** The code is one of ours, or an HTTP status. */
  code: z.union([z.string(), z.number()]).nullish().catch(null),
  /** llama.cpp's name for the prompt's length, in an overflow. */
  n_prompt_tokens: z.int().nullish().catch(null),
  n_ctx: z.int().nullish().catch(null),
});
type Fields = z.infer<typeof fieldsSchema>;

/** FastAPI's error for a request that does not fit a schema. */
const faultSchema = z.looseObject({
  loc: z.array(z.union([z.string(), z.number()])).default([]),
  msg: z.string(),
});

const bodySchema = z.union([
  z.looseObject({ error: fieldsSchema }).transform(({ error }) => error),
  z
    .looseObject({ error: z.string().min(1) })
    .transform(({ error, ...others }): Fields => ({ ...codeOf(others), message: error })),
  // FastAPI's own errors have this form.
  z.looseObject({ detail: z.string().min(1) }).transform(({ detail }): Fields => ({
    message: detail,
  })),
  z.looseObject({ detail: z.array(faultSchema).min(1) }).transform(({ detail }): Fields => ({
    message: detail.map(({ loc, msg }) => [...loc, msg].join(': ')).join('; '),
  })),
  fieldsSchema,
]);

function codeOf({ code }: Readonly<Record<string, unknown>>): Pick<Fields, 'code'> {
  return typeof code === 'number' || typeof code === 'string' ? { code } : {};
}

export type EngineError =
  /** The request is at fault: no worker will take it. */
  | { readonly kind: 'rejected'; readonly error: ApiError }
  /** This worker lacks something, such as the model; its word stands if no other has it. */
  | { readonly kind: 'lacking'; readonly error: ApiError; readonly reason: string }
  | { readonly kind: 'failed'; readonly reason: string };

/** Returns null for JSON that is no error. */
export function readError(json: unknown, context: ErrorContext): EngineError | null {
  const fields = mayBeError(json) ? bodySchema.safeParse(json).data : undefined;
  return fields ? toEngineError(fields, context) : null;
}

/** Every form of an error has one of these; to try them all on each event of a stream is slow. */
function mayBeError(json: unknown): boolean {
  if (typeof json !== 'object' || json === null) return false;
  return 'error' in json || 'detail' in json || 'message' in json;
}

interface ErrorContext {
  /** The status of the HTTP answer; null in a stream, which began with 200. */
  readonly status: number | null;
  readonly secrets: Secrets;
}

function toEngineError(fields: Fields, { status: httpStatus, secrets }: ErrorContext): EngineError {
  const status = statusOf(fields, httpStatus);
  const message = cleanMessage(withNumbers(fields), secrets);
  const code = errorCode(fields, status);
  if (code === null) return { kind: 'failed', reason: `it said: ${message}` };
  const param = /^[\w.[\]$-]{1,200}$/.test(fields.param ?? '') ? fields.param : null;
  const overflow = code === 'context_length_exceeded' ? readOverflow(fields, message) : null;
  const error = new ApiError(code, message, { ...(param && { param }), overflow });
  return code === 'model_not_found'
    ? { kind: 'lacking', error, reason: `status 404: ${message}` }
    : { kind: 'rejected', error };
}

/** An engine's own code is more exact than the status of the answer that carries it. */
function statusOf({ code }: Fields, httpStatus: number | null): number | null {
  const status = Number(code);
  return Number.isInteger(status) && status >= 400 && status <= 599 ? status : httpStatus;
}

/** Words of messages that blame the request, where the error states no status. */
const requestFaults =
  /^(badrequesterror|bad_request|invalid_request_error|validationerror|unprocessable)/i;

/** Returns null if the request is not at fault. */
function errorCode(fields: Fields, status: number | null): ErrorCode | null {
  const { code, type, message } = fields;
  const mayOverflow = status === null || status === 500 || (status >= 400 && status < 429);
  if (mayOverflow && isOverflow({ message, names: [code, type] })) return 'context_length_exceeded';
  if (status === 404 || type === 'NotFoundError') return 'model_not_found';
  const isAtFault =
    status === null
      ? requestFaults.test(type ?? '')
      : status === 400 || status === 413 || status === 422;
  if (!isAtFault) return null;
  if (status === 422 || code === 'invalid_value') return 'invalid_value';
  return code === 'unsupported_parameter' ? 'unsupported_parameter' : 'invalid_request';
}

/** llama.cpp gives an overflow's numbers beside the message, and in older versions only there. */
function withNumbers({ message, n_prompt_tokens: prompt, n_ctx: context }: Fields): string {
  if (prompt == null || context == null || message.includes(String(prompt))) return message;
  return `${message} (${prompt} tokens in the prompt, ${context} in the context)`;
}
