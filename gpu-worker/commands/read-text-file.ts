/** Files that a command line names; `-` is what comes in by the standard input. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../../infra/user-error.ts';

/** The file descriptor of the standard input. */
const stdin = 0;

/** @throws UsageError that names the flag. */
export function readTextFile(flag: string, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      readFileSync(file === '-' ? stdin : file),
    );
  } catch (cause) {
    const reason = cause instanceof TypeError ? `${file} is not valid UTF-8` : messageOf(cause);
    throw new UsageError(`${flag}: ${reason}`, { cause });
  }
}

/** @throws UsageError that names the flag. */
export function readJsonObject(flag: string, file: string): object {
  const text = readTextFile(flag, file);
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json;
  } catch (cause) {
    throw new UsageError(`${flag}: ${file} is not JSON: ${messageOf(cause)}`, { cause });
  }
  throw new UsageError(`${flag}: ${file} holds no JSON object`);
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
