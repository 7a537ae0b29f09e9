/** The messages between the edge and a thread that works on bodies. */
import { ApiError } from '../errors.ts';
import type { ErrorCode, ErrorDetails } from '../errors.ts';
import type { PrepareInput, Prepared } from '../inference/prepare.ts';
import type { Rewriting } from '../inference/rewrite-body.ts';

export type Bytes = Uint8Array<ArrayBuffer>;
export type PreparedBytes = Omit<Prepared, 'body'> & { readonly body: Bytes };

export type ToThread =
  | { readonly kind: 'prepare'; readonly input: PrepareInput }
  | { readonly kind: 'rewrite'; readonly body: Bytes; readonly to: Rewriting };

export type FromThread =
  | { readonly kind: 'prepared'; readonly prepared: PreparedBytes }
  | { readonly kind: 'rewritten'; readonly body: Bytes }
  | { readonly kind: 'refused'; readonly error: SentError }
  | { readonly kind: 'failed'; readonly reason: string };

/** An ApiError loses its class on the way to another thread. */
export interface SentError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

export function sendable(error: ApiError): SentError {
  const { code, message, param, headers, overflow, details: clientDetails } = error;
  const details = {
    ...(param !== null && { param }),
    headers,
    overflow,
    ...(clientDetails && { details: clientDetails }),
  };
  return { code, message, details };
}

export function received({ code, message, details }: SentError): ApiError {
  return new ApiError(code, message, details);
}
