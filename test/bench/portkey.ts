/**
 * Portkey's gateway, to be measured beside the edge. It is no dependency of ours: BENCH_PORTKEY
 * names a folder in which `npm install @portkey-ai/gateway` was run.
 */
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { startProgram } from '../support/started-program.ts';

export interface Portkey {
  readonly url: string;
  readonly pid: number;
  /** Headers that tell it where to send a request. */
  readonly headers: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

/** null where it is not installed. */
export async function startPortkey(options: {
  readonly workerUrl: string;
  readonly cpus: string | undefined;
}): Promise<Portkey | null> {
  const folder = process.env['BENCH_PORTKEY'];
  const entry = join(folder ?? '', 'node_modules/@portkey-ai/gateway/build/start-server.js');
  if (folder === undefined || !existsSync(entry)) return null;
  const args = ['test/bench/edge-portkey.ts', entry, `--port=${await freePort()}`, '--headless'];
  const { url, pid, stop } = await startProgram({ args, cpus: options.cpus });
  const headers = {
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${options.workerUrl}/v1`,
    authorization: 'Bearer none',
  };
  return { url, pid, headers, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
