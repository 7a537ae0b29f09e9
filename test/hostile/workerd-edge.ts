/**
 * The edge in workerd as a program of its own: settings from the environment, its log on standard
 * output.
 */
import { mkdirSync } from 'node:fs';
import { onStopSignal } from '../../infra/stop-signal.ts';
import { startWorkerdEdge } from '../../infra/workerd-edge.ts';

const { EDGE_DATA: folder, PORT: _port, ...env } = process.env;
if (folder === undefined) throw new Error('EDGE_DATA is missing');
mkdirSync(folder, { recursive: true });
const settings = Object.fromEntries(
  Object.entries(env).flatMap(([name, value]) =>
    value !== undefined && /^(EDGE_|WORKER_TOKEN$)/.test(name) ? [[name, value]] : [],
  ),
);
const edge = await startWorkerdEdge({ folder, settings, onLog: (line) => console.log(line) });
console.log(edge.url);
onStopSignal(() => void edge.close().then(() => process.exit(0)));
