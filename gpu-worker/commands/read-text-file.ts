/** Files that a command line names. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../../infra/user-error.ts';

/** @throws UsageError that names the flag. */
export function readTextFile(flag: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new UsageError(`${flag}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}
