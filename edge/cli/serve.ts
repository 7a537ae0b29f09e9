/** `sift edge`: the edge on Node, until it is told to stop. */
import { addSettings } from '../../infra/program.ts';
import type { CommandModule } from '../../infra/program.ts';
import { environment } from '../../infra/settings.ts';
import { onStopSignal } from '../../infra/stop-signal.ts';
import { readNodeSettings } from '../settings/read-settings.ts';
import { startEdge } from '../node/node.ts';
import { nodeSettings } from '../settings/settings-table.ts';

export const configure: CommandModule['configure'] = (program) => {
  addSettings(program, nodeSettings, serve);
};

async function serve(): Promise<void> {
  const edge = await startEdge({ settings: readNodeSettings(environment()) });
  edge.services.log('info', 'listening', { url: edge.url });
  onStopSignal((signal) => {
    edge.services.log('info', 'stopping', { signal });
    void edge.close().then(() => process.exit(0));
  });
}
