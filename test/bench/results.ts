/** Appends measurements to results.jsonl, one JSON object a line, with what they depend on. */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { at } from '../../gpu-worker/at.ts';

const file = fileURLToPath(new URL('./results.jsonl', import.meta.url));

export interface Measurement {
  /** The measurement's name, such as `worker`. */
  readonly benchmark: string;
  /** Shapes and counts that the figures depend on. */
  readonly shapes: Readonly<Record<string, unknown>>;
  /** Medians, unless a name says otherwise; units last in each name. */
  readonly figures: Readonly<Record<string, number | string>>;
}

export function recordResult(measurement: Measurement): void {
  const line = {
    date: new Date().toISOString(),
    commit: currentCommit(),
    device: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} cores`,
    node: process.version,
    ...measurement,
  };
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? at(sorted, middle)
    : (at(sorted, middle - 1) + at(sorted, middle)) / 2;
}

/**
 * The commit, with a `+` when the tree has changes that are not committed. A copy without git is
 * told by SIFT_COMMIT.
 */
function currentCommit(): string {
  const told = process.env['SIFT_COMMIT'];
  if (told !== undefined) return told;
  try {
    const dirty = git('status', '--porcelain', '--untracked-files=no') !== '';
    return git('rev-parse', '--short', 'HEAD') + (dirty ? '+' : '');
  } catch {
    return 'unknown';
  }
}

function git(...args: string[]): string {
  return execFileSync('git', args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}
