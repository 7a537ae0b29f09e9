/**
 * Gives the programs that serve one size of young generations. Left to itself V8 grows those of a
 * busy server to 128 MiB and shrinks them again, and memory seems to leak in steps.
 */
import { environment } from './settings.ts';

const flagNames = ['--min-semi-space-size', '--max-semi-space-size'] as const;

/**
 * Begins this process anew, under the same id, with the flags in front of its own. V8 reads them
 * when it makes its heap, so that setting them later changes threads alone. Flags of the operator
 * stand; where Node has no execve (before 22.15, and on Windows) V8's own sizes do.
 */
export function restartWithSemiSpace(sizeMiB: number): void {
  const missing = flagNames.filter((name) => !isGiven(name));
  if (missing.length === 0 || !('execve' in process)) return;
  const flags = missing.map((name) => `${name}=${sizeMiB}`);
  const { execPath, execArgv, argv } = process;
  process.execve(execPath, [execPath, ...execArgv, ...flags, ...argv.slice(1)]);
}

function isGiven(name: string): boolean {
  const given = [...process.execArgv, ...(environment()['NODE_OPTIONS'] ?? '').split(/\s+/)];
  return given.some((flag) => flag.replaceAll('_', '-').startsWith(name));
}
