/**
 * Runs a worker whose device faults in mid-answer, and tells what its client, operator and edge
 * saw.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { heartbeatSchema } from '../../../gpu-worker/protocol/heartbeat.ts';
import { parseEvents } from '../worker/http-worker.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

export interface FaultSeen {
  /** The events of the answer that was cut. */
  readonly events: readonly unknown[];
  readonly health: { readonly status: number; readonly body: unknown };
  /** The status of a request made after the fault. */
  readonly nextStatus: number;
  /** The usage of the answer that was cut, as the worker's journal has it. */
  readonly usage: unknown;
  readonly exitCode: number | null;
  /** The state in each heartbeat. */
  readonly states: readonly string[];
}

/** `preload` is imported into the worker before its own code. */
export async function observeFault(options: {
  preload: string;
  flags: readonly string[];
  data: string;
}): Promise<FaultSeen> {
  const states: string[] = [];
  const edge = createServer(async (req, res) => {
    states.push(heartbeatSchema.parse(JSON.parse(await text(req))).state);
    res.writeHead(204).end();
  }).listen(0, '127.0.0.1');
  await once(edge, 'listening');
  // A server that listens on TCP has an address with a port.
  const { port } = edge.address() as AddressInfo;
  const flags = [
    '--model gpu-worker/models/tiny --port 0 --cache-tokens 4096 --data'.split(' '),
    [options.data, '--edge', `http://127.0.0.1:${port}`],
    options.flags,
  ].flat();
  const worker = spawn(
    process.execPath,
    ['--import', options.preload, 'infra/sift.ts', 'worker', ...flags],
    { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    const exited = once(worker, 'exit');
    const url = await urlOnceReady(worker.stdout);
    const events = parseEvents(await (await ask(url)).text());
    const health = await fetch(`${url}/health`);
    const seen = {
      events,
      health: { status: health.status, body: await health.json() },
      nextStatus: (await ask(url)).status,
      usage: await (await fetch(`${url}/v1/requests/cut/usage`)).json(),
    };
    const [exitCode] = (await exited) as [number | null];
    return { ...seen, exitCode, states };
  } finally {
    worker.kill('SIGKILL');
    edge.close();
    edge.closeAllConnections();
  }
}

function urlOnceReady(output: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve, reject) => {
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const [, found] = /"url":"([^"]+)".*"msg":"ready"/.exec(chunk) ?? [];
      if (found !== undefined) resolve(found);
    });
    output.on('end', () => reject(new Error('the worker ended before it was ready')));
  });
}

function ask(url: string): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-request-id': 'cut' },
    body: JSON.stringify({
      model: 'sift-tiny',
      prompt: 'The harbor',
      max_tokens: 40,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    }),
  });
}
