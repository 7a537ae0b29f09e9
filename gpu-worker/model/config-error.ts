/** Errors of a config.json. */
import { UserError } from '../../infra/user-error.ts';

/** The message begins with the key that is wrong. */
export class ConfigError extends UserError {
  override name = 'ConfigError';
}

/** @throws ConfigError that begins with the key, if the relation does not hold. */
export function check(key: string, holds: boolean, complaint: string): void {
  if (!holds) throw new ConfigError(`${key} ${complaint}`);
}
