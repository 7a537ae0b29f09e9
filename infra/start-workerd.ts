/** `sift start-workerd`: the whole system on this machine, with the edge in workerd. */
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readNodeSettings } from '../edge/settings/read-settings.ts';
import { makeSecrets } from '../edge/node/secrets.ts';
import { sharedSettings } from '../edge/settings/settings-table.ts';
import type { CommandModule } from './program.ts';
import { environment } from './settings.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { bookOption, runSystem, settingsNote } from './system.ts';
import { toUserError } from './user-error.ts';
import { startWorkerdEdge } from './workerd-edge.ts';

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--no-book', bookOption)
    .addHelpText('after', `\n${settingsNote}`)
    .action(async ({ book }) => {
      const stop = abortOnStopSignal();
      try {
        await start({ stop, book });
      } catch (error) {
        // A start that was told to stop has closed what it had started.
        if (!stop.aborted) throw toUserError(error);
      }
      process.exit(0);
    });
};

async function start({ stop, book }: { stop: AbortSignal; book: boolean }): Promise<void> {
  const settings = readNodeSettings(environment());
  const dataFolder = resolve(settings.dataFolder, 'workerd');
  mkdirSync(dataFolder, { recursive: true, mode: 0o700 });
  const secrets = makeSecrets(settings, join(dataFolder, 'secrets.env'));
  const edge = await startWorkerdEdge({
    folder: dataFolder,
    host: settings.host,
    port: settings.port,
    stop,
    onStep: (step) => console.log(`${step} ...`),
    settings: {
      ...edgeVariables(environment()),
      EDGE_KEY_SIGNING_SECRETS: secrets.keySigningSecrets.join(','),
      EDGE_CACHE_SECRET: secrets.cacheSecret,
      EDGE_RECEIPT_KEYS: secrets.receiptKeys.join(','),
      EDGE_ADMIN_TOKEN: secrets.adminToken,
      WORKER_TOKEN: secrets.workerToken,
    },
  });
  const { adminToken, workerToken } = secrets;
  console.log('starting a worker with the tiny model ...\n');
  await runSystem({ ...edge, adminToken, workerToken, dataFolder }, environment(), { stop, book });
}

/** Settings of Node alone are left out: the edge in workerd would refuse them. */
function edgeVariables(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const row of Object.values(sharedSettings)) {
    const value = env[row.env];
    if (value) variables[row.env] = value;
  }
  return variables;
}
