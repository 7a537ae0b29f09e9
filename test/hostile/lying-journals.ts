/** Journals of workers that lie about what a request used, or do not end. */
import type { ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import type { Attack } from './attack.ts';
import {
  growthMiBMax,
  content,
  event,
  eventStream,
  isSettled,
  peakGrowthMiB,
  withEngine,
  writeForever,
} from './hostile-engine.ts';

export function journalAttacks(): Attack[] {
  const journals: Readonly<Record<string, (res: ServerResponse) => void>> = {
    'never ends': (res) => writeForever(res.writeHead(200), Buffer.alloc(65_536, ' ')),
    'is a bomb in gzip': (res) =>
      void res
        .writeHead(200, { 'content-encoding': 'gzip', 'content-type': 'application/json' })
        .end(bomb()),
    redirects: (res) => void res.writeHead(307, { location: 'http://127.0.0.1:1/' }).end(),
    'counts 10^15 tokens': (res) => res.writeHead(200).end(record(10 ** 15)),
    'counts a billion tokens': (res) => res.writeHead(200).end(record(10 ** 9)),
    'counts below 0': (res) => res.writeHead(200).end(record(-1)),
  };
  return Object.entries(journals).map(([name, others]): Attack => ({
    name: `a journal that ${name}`,
    mayLog: 'cost-exceeded-hold',
    secondsMax: 90,
    run: (system) =>
      withEngine(
        system,
        {
          answer(res) {
            res.writeHead(200, eventStream);
            res.write(content('x', { usage: null }));
            res.write(event({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 1 } }));
          },
          others,
        },
        async (engine) => {
          const growth = await peakGrowthMiB(system, async () => {
            const client = new AbortController();
            const response = await engine.ask({ stream: true }, client.signal);
            await response.body?.getReader().read();
            client.abort();
            await isSettled(system, engine.caller);
          });
          if (growth > growthMiBMax) return { broken: `the edge grew by ${growth} MiB` };
          return isSettled(system, engine.caller);
        },
      ),
  }));
}

function record(tokens: number): string {
  const usage = {
    prompt_tokens: tokens,
    completion_tokens: tokens,
    total_tokens: tokens,
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0 },
    prompt_cache_hit_tokens: 0,
    prompt_cache_miss_tokens: tokens,
  };
  const head = { object: 'request.usage', id: 'x', model: 'x', status: 'aborted' };
  return JSON.stringify({ ...head, created: 1, updated: 1, usage });
}

/** 1 GiB of blanks. */
export function bomb(): Buffer {
  const piece = gzipSync(Buffer.alloc(64 * 2 ** 20, ' '));
  return Buffer.concat(Array(16).fill(piece));
}
