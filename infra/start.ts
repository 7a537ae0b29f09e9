/** `npm start`: the whole system on this machine, with the edge on Node. */
import { resolve } from 'node:path';
import { readNodeSettings } from '../edge/env.ts';
import { startEdge } from '../edge/node.ts';
import { demoTenant } from './demo-tenant.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { runSystem } from './system.ts';

const stop = abortOnStopSignal();
try {
  const settings = readNodeSettings({ EDGE_LOG_LEVEL: 'warn', ...process.env });
  const edge = await startEdge({ settings });
  try {
    // A damaged database of the demo tenant is reported here, in its own words.
    await edge.services.tenant(demoTenant).balance();
  } catch (error) {
    await edge.close();
    throw error;
  }
  const { adminToken, workerToken } = edge.services.settings;
  const dataFolder = resolve(settings.dataFolder);
  await runSystem(
    { url: edge.url, close: edge.close, adminToken, workerToken, dataFolder },
    process.env,
    stop,
  );
  process.exit(0);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
