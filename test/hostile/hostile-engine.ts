/**
 * A server on loopback that the edge takes for a worker, and that answers as an attack tells it to.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { processUsage } from '../support/process-usage.ts';
import { verdictOf } from './attack.ts';
import type { Verdict } from './attack.ts';
import { secrets, setPrice } from './system.ts';
import type { Caller, HostileSystem } from './system.ts';

type Answer = (res: ServerResponse, req: IncomingMessage) => void | Promise<void>;

export interface EngineScript {
  /** The answer of the routes that generate. */
  readonly answer: Answer;
  /** The answer of all others; without it they are unknown. */
  readonly others?: Answer;
}

export interface HostileEngine {
  readonly url: string;
  /** The model that it alone serves, at the usual price. */
  readonly model: string;
  /** Asks with the key of a tenant of its own. */
  ask(fields?: Readonly<Record<string, unknown>>, signal?: AbortSignal): Promise<Response>;
  readonly caller: Caller;
}

const bodyBytesMax = 2 ** 20;
const startNanoUsd = 10_000_000_000;

let engines = 0;

/** Runs the attack beside a hostile engine, which announces itself with the workers' token. */
export async function withEngine(
  system: HostileSystem,
  script: EngineScript,
  attack: (engine: HostileEngine) => Promise<Verdict>,
): Promise<Verdict> {
  const server = createServer((req, res) => {
    // The edge may be gone before the answer is.
    res.on('error', () => {});
    const isGeneration = /^\/v1\/(chat\/)?completions$/.test(req.url ?? '');
    const answer = isGeneration ? script.answer : (script.others ?? refuse);
    readAll(req).then(
      () => answer(res, req),
      () => res.destroy(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // It listens on TCP, so its address has a port.
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const model = `hostile-${++engines}`;
  const sold = { id: model, context_length: 4_096, revision: 'r1', tokenizer: 't1' };
  await system.operator.call('POST', '/models', sold);
  await setPrice(system.operator, model);
  const caller = await system.addTenant(`of-${model}`, startNanoUsd);
  const beat = (state: 'ready' | 'draining'): Promise<Response> =>
    fetch(`${system.edge.url}/internal/workers/heartbeat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secrets.workerToken}` },
      body: JSON.stringify(heartbeatOf({ id: model, url, model, state })),
    });
  const said = await beat('ready');
  if (!said.ok) throw new Error(`the engine's heartbeat: ${said.status} ${await said.text()}`);
  try {
    return await attack({
      url,
      model,
      caller,
      ask: (fields = {}, signal) =>
        system.post(
          caller,
          '/v1/chat/completions',
          { model, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 8, ...fields },
          { ...(signal && { signal }) },
        ),
    });
  } finally {
    await beat('draining').catch(() => {});
    server.close();
    server.closeAllConnections();
  }
}

function refuse(res: ServerResponse): void {
  res.writeHead(404).end();
}

async function readAll(req: IncomingMessage): Promise<void> {
  let bytes = 0;
  for await (const piece of req) {
    bytes += (piece as Buffer).length;
    if (bytes > bodyBytesMax) throw new Error('the edge sent too much');
  }
}
export const eventStream = { 'content-type': 'text/event-stream' };

export function event(fields: Readonly<Record<string, unknown>>): string {
  return `data: ${JSON.stringify(fields)}\n\n`;
}

export function content(text: string, more: Readonly<Record<string, unknown>> = {}): string {
  return event({ choices: [{ index: 0, delta: { content: text }, ...more }] });
}

export const finished = event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });

/** The events that a harmless answer ends with. */
export const ended = (usage: unknown = { prompt_tokens: 9, completion_tokens: 2 }): string =>
  `${finished}${event({ choices: [], usage })}data: [DONE]\n\n`;

/** Writes the same piece until the other side has had enough; as fast as it is read. */
export function writeForever(res: ServerResponse, piece: string | Buffer): void {
  const go = (): void => {
    while (!res.destroyed && !res.writableEnded) {
      if (!res.write(piece)) return;
    }
  };
  res.on('drain', go);
  go();
}
const balanceSchema = z.object({
  balance: z.object({ granted_nano_usd: z.int(), held_nano_usd: z.int() }),
});
/** More than the hold of any request that these attacks send. */
const costMax = 5_000_000;
const settledMsMax = 20_000;

/** Every hold of the engine's tenant is resolved, and what was paid is in bounds. */
export async function isSettled(system: HostileSystem, caller: Caller): Promise<Verdict> {
  const untilMs = performance.now() + settledMsMax;
  for (;;) {
    const answer = await system.operator.call('GET', `/tenants/${caller.tenant}`);
    const { granted_nano_usd: left, held_nano_usd: held } = balanceSchema.parse(answer).balance;
    const paid = startNanoUsd - left;
    if (held === 0) {
      return verdictOf(paid >= 0 && paid <= costMax ? null : `${paid} nano-USD were paid`);
    }
    if (performance.now() > untilMs) return { broken: `a hold of ${held} nano-USD stays open` };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** The memory that an attack may make the edge grow by while it lasts. */
export const growthMiBMax = 400;

/** The edge's growth in memory while the work went on, looked at often. */
export async function peakGrowthMiB(
  system: HostileSystem,
  work: () => Promise<unknown>,
): Promise<number> {
  const { residentMiB: before } = processUsage(system.edge.pid);
  let peak = before;
  const timer = setInterval(() => {
    if (system.edge.isRunning()) peak = Math.max(peak, processUsage(system.edge.pid).residentMiB);
  }, 50);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return Math.round(peak - before);
}
