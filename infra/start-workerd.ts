/** `sift start-workerd`: the whole system on this machine, with the edge in workerd. */
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readNodeSettings } from '../edge/env.ts';
import { makeSecrets } from '../edge/node/node.ts';
import type { CommandModule } from './program.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { runSystem, settingsNote } from './system.ts';
import { startWorkerdEdge } from './workerd-edge.ts';

/** Settings that only Node alone has; workerd's would refuse them. */
const nodeOnly = /^EDGE_(HOST|DATA|OPEN_TENANTS|LOG_LEVEL)$/;

export const configure: CommandModule['configure'] = (program) => {
  program.addHelpText('after', `\n${settingsNote}`).action(async () => {
    const stop = abortOnStopSignal();
    try {
      await start(stop);
    } catch (error) {
      // A start that was told to stop has closed what it had started.
      if (!stop.aborted) throw error;
    }
    process.exit(0);
  });
};
export const isExpected = (): boolean => true;

async function start(stop: AbortSignal): Promise<void> {
  const settings = readNodeSettings(process.env);
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
      ...edgeVariables(process.env),
      EDGE_KEY_SIGNING_SECRETS: secrets.keySigningSecrets.join(','),
      EDGE_CACHE_SECRET: secrets.cacheSecret,
      EDGE_ADMIN_TOKEN: secrets.adminToken,
      WORKER_TOKEN: secrets.workerToken,
    },
  });
  const { adminToken, workerToken } = secrets;
  console.log('starting a worker with the tiny model ...\n');
  await runSystem({ ...edge, adminToken, workerToken, dataFolder }, process.env, stop);
}

function edgeVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      value && name.startsWith('EDGE_') && !nodeOnly.test(name) ? [[name, value]] : [],
    ),
  );
}
