/** Errors lose their class on the way to another thread; these find it again. */
import { DatabaseUnavailable } from '../../../db/unavailable.ts';
import type { UnavailableReason } from '../../../db/unavailable.ts';
import { UserError } from '../../../infra/user-error.ts';
import { sendable } from '../../bodies/body-messages.ts';
import type { SentError } from '../../bodies/body-messages.ts';
import { ApiError } from '../../errors.ts';
import { TenantUnavailable } from '../../tenant/tenant-unavailable.ts';

interface SentUnavailable {
  readonly reason: UnavailableReason;
  readonly message: string;
}

export type SentCallError =
  | { readonly kind: 'tenant'; readonly tenant: string; readonly found: SentUnavailable }
  | { readonly kind: 'database'; readonly found: SentUnavailable }
  | { readonly kind: 'api'; readonly error: SentError; readonly cause: Described | null }
  | { readonly kind: 'user'; readonly message: string }
  | { readonly kind: 'other'; readonly error: Described };

interface Described {
  readonly name: string;
  readonly message: string;
  /** The stack of the other thread: it says where the error was thrown. */
  readonly stack: string;
}

export function sendableError(error: unknown): SentCallError {
  if (error instanceof TenantUnavailable) {
    const { tenant, reason, cause } = error;
    const message = cause instanceof Error ? cause.message : error.message;
    return { kind: 'tenant', tenant, found: { reason, message } };
  }
  if (error instanceof DatabaseUnavailable) {
    const { reason, message } = error;
    return { kind: 'database', found: { reason, message } };
  }
  if (error instanceof ApiError) {
    const { cause } = error;
    return {
      kind: 'api',
      error: sendable(error),
      cause: cause === undefined ? null : described(cause),
    };
  }
  if (error instanceof UserError) return { kind: 'user', message: error.message };
  return { kind: 'other', error: described(error) };
}

export function receivedError(sent: SentCallError): Error {
  switch (sent.kind) {
    case 'tenant':
      return new TenantUnavailable(sent.tenant, databaseUnavailable(sent.found));
    case 'database':
      return databaseUnavailable(sent.found);
    case 'api': {
      const { code, message, details } = sent.error;
      const cause = sent.cause === null ? {} : { cause: errorOf(sent.cause) };
      return new ApiError(code, message, { ...details, ...cause });
    }
    case 'user':
      return new UserError(sent.message);
    case 'other':
      return errorOf(sent.error);
  }
}

function databaseUnavailable({ reason, message }: SentUnavailable): DatabaseUnavailable {
  return new DatabaseUnavailable(reason, message);
}

function described(thrown: unknown): Described {
  if (!(thrown instanceof Error)) {
    return { name: 'Error', message: String(thrown), stack: String(thrown) };
  }
  const { name, message, stack = message } = thrown;
  return { name, message, stack };
}

function errorOf({ name, message, stack }: Described): Error {
  return Object.assign(new Error(message), { name, stack });
}
