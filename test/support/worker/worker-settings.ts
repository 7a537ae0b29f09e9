/** The settings that a worker has of a command line, as `sift worker` reads it. */
import { addSettings, createProgram } from '../../../infra/program.ts';
import { readWorkerSettings, workerSettings } from '../../../gpu-worker/settings.ts';
import type { WorkerSettings } from '../../../gpu-worker/settings.ts';

/** @throws UserError or CommanderError, by what is wrong. */
export function settingsOfArgs(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): WorkerSettings {
  const program = createProgram('sift worker', 'one worker').configureOutput({ writeErr() {} });
  const read: WorkerSettings[] = [];
  addSettings(program, workerSettings, (flags) => void read.push(readWorkerSettings(flags, env)));
  program.parse([...args], { from: 'user' });
  const [settings] = read;
  if (settings === undefined) throw new Error('the program did not run');
  return settings;
}
