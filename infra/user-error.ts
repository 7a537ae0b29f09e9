/** Errors that people cause and people mend. */

/**
 * An error whose message is all that its reader needs: a program prints it without a stack trace.
 */
export class UserError extends Error {
  override name = 'UserError';
  /** The code with which a program ends that meets it. */
  readonly exitCode: number = 1;
}

/** A command line that cannot be taken: a program that meets one ends with code 2. */
export class UsageError extends UserError {
  override name = 'UsageError';
  override readonly exitCode = 2;
}

/** Marks an error of a start, which has come from elsewhere with a message for people. */
export function toUserError(error: unknown): UserError {
  if (error instanceof UserError) return error;
  return new UserError(error instanceof Error ? error.message : String(error), { cause: error });
}
