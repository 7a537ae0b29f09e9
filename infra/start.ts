/** `sift start`: the whole system on this machine, with the edge on Node. */
import { resolve } from 'node:path';
import { readNodeSettings } from '../edge/settings/read-settings.ts';
import { startEdge } from '../edge/node/node.ts';
import { TenantUnavailable } from '../edge/tenant/tenant-unavailable.ts';
import { demoTenant } from './demo-tenant.ts';
import type { CommandModule } from './program.ts';
import { environment } from './settings.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { bookOption, runSystem, settingsNote } from './system.ts';
import { toUserError } from './user-error.ts';

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--no-book', bookOption)
    .addHelpText('after', `\n${settingsNote}`)
    .action(({ book }) =>
      start({ book }).catch((error: unknown) => {
        throw toUserError(error);
      }),
    );
};

async function start({ book }: { readonly book: boolean }): Promise<void> {
  const stop = abortOnStopSignal();
  const settings = readNodeSettings({ EDGE_LOG_LEVEL: 'warn', ...environment() });
  const edge = await startEdge({ settings });
  try {
    // A damaged database of the demo tenant is reported here, with what to do.
    const known = await edge.services.directory.tenant(demoTenant);
    if (known !== null) await edge.services.tenant(demoTenant).balance();
  } catch (error) {
    await edge.close();
    throw error instanceof TenantUnavailable ? new Error(error.advice, { cause: error }) : error;
  }
  const { adminToken, workerToken } = edge.services.settings;
  const dataFolder = resolve(settings.dataFolder);
  await runSystem(
    { url: edge.url, close: edge.close, adminToken, workerToken, dataFolder },
    environment(),
    { stop, book },
  );
  process.exit(0);
}
