/** Debian's OpenStack Swift with its S3 API, a real S3-compatible server, on loopback. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const swiftCredentials = { accessKeyId: 'test:tester', secretAccessKey: 'testing' };

const script = fileURLToPath(new URL('./swift-start.sh', import.meta.url));
const packages = 'curl swift swift-proxy swift-account swift-container swift-object';

export interface Swift extends AsyncDisposable {
  readonly url: string;
}

/** Takes some seconds. Throws what to install where Swift is missing. */
export async function startSwift(): Promise<Swift> {
  for (const command of ['curl', 'swift-proxy-server', 'swift-ring-builder']) {
    if (spawnSync('which', [command]).status !== 0) {
      throw new Error(
        `${command} is missing: apt-get install -y --no-install-recommends ${packages}`,
      );
    }
  }
  const directory = mkdtempSync(join(tmpdir(), 'sift-swift-'));
  const port = await freePort();
  const starting = spawn('bash', [script, directory, String(port)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code] = await once(starting, 'exit');
  const swift = {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      const pids = readFileSync(join(directory, 'pids'), 'utf8').trim().split('\n').map(Number);
      for (const pid of pids) stop(pid, 'SIGTERM');
      for (let waits = 0; pids.some(isRunning) && waits < 50; waits++) await sleep(100);
      for (const pid of pids) stop(pid, 'SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
  if (code === 0) return swift;
  await swift[Symbol.asyncDispose]();
  throw new Error('Swift did not start');
}

/**
 * The servers behind the proxy take the ports from ten above it on; those are hardly ever taken.
 */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A server that listens on TCP has an address with a port.
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port < 65_000 ? port : freePort();
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function stop(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (isRunning(pid)) process.kill(pid, signal);
}
