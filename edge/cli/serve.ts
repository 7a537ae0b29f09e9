/** `sift edge`: the edge on Node, until it is told to stop. */
import type { CommandModule } from '../../infra/program.ts';
import { onStopSignal } from '../../infra/stop-signal.ts';
import { readNodeSettings, settingNames, SettingsError } from '../env.ts';
import { startEdge } from '../node/node.ts';

export const configure: CommandModule['configure'] = (program) => {
  program
    .addHelpText('after', `\nSettings are environment variables: ${settingNames.join(', ')}.`)
    .action(serve);
};
export const isExpected = (error: Error): boolean => error instanceof SettingsError;

async function serve(): Promise<void> {
  const edge = await startEdge({ settings: readNodeSettings(process.env) });
  edge.services.log({ event: 'listening', url: edge.url });
  onStopSignal((signal) => {
    edge.services.log({ event: 'stopping', signal });
    void edge.close().then(() => process.exit(0));
  });
}
