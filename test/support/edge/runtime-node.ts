/** Node in a folder of the test's own, on any free port. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readNodeSettings } from '../../../edge/settings/read-settings.ts';
import { startEdge } from '../../../edge/node/node.ts';
import type { EdgeOptions, RunningEdge } from '../../../edge/node/node.ts';

export function testFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'sift-edge-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export async function startNode(
  folder: string,
  options: Omit<EdgeOptions, 'settings'> & { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<RunningEdge> {
  const { env, ...rest } = options;
  // Other threads have the system's clock.
  const threads = options.clock === undefined ? process.env['EDGE_THREADS'] : '1';
  const settings = readNodeSettings({
    ...(threads !== undefined && { EDGE_THREADS: threads }),
    PORT: '0',
    EDGE_DATA: folder,
    EDGE_LOG_LEVEL: 'silent',
    ...env,
  });
  return startEdge({ settings, ...rest });
}
