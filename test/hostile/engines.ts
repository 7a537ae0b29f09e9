/** Workers that lie in their counts, never end, send what is no answer, or are none. */
import type { ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { verdictOf, wasRefused } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import {
  content,
  ended,
  event,
  eventStream,
  growthMiBMax,
  finished,
  isSettled,
  peakGrowthMiB,
  withEngine,
  writeForever,
} from './hostile-engine.ts';
import type { EngineScript, HostileEngine } from './hostile-engine.ts';
import { secrets, servedModel } from './system.ts';
import type { HostileSystem } from './system.ts';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { endlessAttacks } from './endless-engines.ts';
import { bomb, journalAttacks } from './lying-journals.ts';

/** Counts as an engine may state them, as JSON. */
const lies: Readonly<Record<string, string>> = {
  'below 0': '{"prompt_tokens":-5,"completion_tokens":2}',
  'of half a token': '{"prompt_tokens":9.5,"completion_tokens":2}',
  'as text': '{"prompt_tokens":"9","completion_tokens":"2"}',
  'of 10^15': '{"prompt_tokens":1000000000000000,"completion_tokens":1000000000000000}',
  'of 2^53': '{"prompt_tokens":9007199254740992,"completion_tokens":9007199254740992}',
  'just below 2^53': '{"prompt_tokens":9007199254740991,"completion_tokens":9007199254740991}',
  'without end': '{"prompt_tokens":1e999,"completion_tokens":1e999}',
  'of a billion': '{"prompt_tokens":1000000000,"completion_tokens":1000000000}',
  'beyond the hold': '{"prompt_tokens":100000,"completion_tokens":100000}',
  'with more cached than there is':
    '{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":6400}}',
  'with cached below 0':
    '{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":-64}}',
  'with more reasoning than output':
    '{"prompt_tokens":9,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":99}}',
  'of minus zero': '{"prompt_tokens":-0,"completion_tokens":-0}',
  'of odd names': '{"__proto__":{"prompt_tokens":9},"constructor":1}',
  'as a list': '[9,2]',
};

const stream = (...pieces: readonly string[]) => ({
  answer(res: ServerResponse) {
    res.writeHead(200, eventStream).end(pieces.join(''));
  },
});

/** Answers that are none, or that are too much of something; each is over at once. */
const oddities: Readonly<Record<string, EngineScript>> = {
  'text that spells events': stream(content('x\n\ndata: [DONE]\n\nevent: error\n\n'), ended()),
  'half of a surrogate pair': stream(
    'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
    ended(),
  ),
  'a choice at 2^31': stream(
    event({ choices: [{ index: 2 ** 31, delta: { content: 'x' } }] }),
    ended(),
  ),
  'a choice that nobody asked for': stream(
    event({ choices: [{ index: 1_023, delta: { content: 'x' } }] }),
    ended(),
  ),
  'a tool call at 2^31': stream(
    event({ choices: [{ index: 0, delta: { tool_calls: [{ index: 2 ** 31, id: 'a' }] } }] }),
    ended(),
  ),
  '100,000 choices in one event': stream(
    event({ choices: Array.from({ length: 100_000 }, () => ({ delta: { content: 'x' } })) }),
    ended(),
  ),
  '400,000 logprobs in one event': stream(
    event({
      choices: [
        { index: 0, delta: { content: 'x' }, logprobs: { content: Array(400_000).fill(0) } },
      ],
    }),
    ended(),
  ),
  'logprobs nested 100,000 deep': stream(
    `data: {"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":${'['.repeat(100_000)}${']'.repeat(100_000)}}}]}\n\n`,
    ended(),
  ),
  'prompt logprobs nested 100,000 deep': stream(
    `data: {"choices":[],"prompt_logprobs":${'['.repeat(100_000)}${']'.repeat(100_000)}}\n\n`,
    content('x'),
    ended(),
  ),
  'arguments nested 100,000 deep': stream(
    event({
      choices: [
        { index: 0, delta: { tool_calls: [{ index: 0, id: 'a', function: { name: 'f' } }] } },
      ],
    }),
    `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}}]}}]}\n\n`,
    ended(),
  ),
  'an event by odd names': stream(
    'data: {"__proto__":{"choices":[]},"constructor":1,"choices":[{"index":0,"delta":{"__proto__":1,"content":"x"}}]}\n\n',
    ended(),
  ),
  'no events at all': stream(),
  'an end before anything': stream('data: [DONE]\n\n'),
  'a count and nothing else': stream(
    event({ choices: [], usage: { prompt_tokens: 9 } }),
    'data: [DONE]\n\n',
  ),
  'answers after the end': stream(content('x'), ended(), content('y'), ended()),
  'a page in place of events': {
    answer: (res) => void res.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
  },
  'a status of 199': { answer: (res) => void res.writeHead(599).end('{}') },
  'an error that tells its address': {
    answer: (res, req) =>
      void res
        .writeHead(400, { 'content-type': 'application/json' })
        .end(
          JSON.stringify({ error: { message: `bad ${req.headers.host} ${secrets.workerToken}` } }),
        ),
  },
  'a head of 1 MB': {
    answer: (res) =>
      void res.writeHead(200, { ...eventStream, 'x-long': 'a'.repeat(2 ** 20) }).end(),
  },
  'a thousand early hints': {
    answer(res) {
      for (let hint = 0; hint < 1_000; hint++) res.writeEarlyHints({ link: '</x>; rel=preload' });
      res.writeHead(200, eventStream).end(content('x') + ended());
    },
  },
  'an answer in gzip': {
    answer: (res) =>
      void res
        .writeHead(200, { ...eventStream, 'content-encoding': 'gzip' })
        .end(gzipSync(content('x') + ended())),
  },
  'a Retry-After without end': {
    answer: (res) => void res.writeHead(429, { 'retry-after': '1e308' }).end(),
  },
  'a connection that closes at once': { answer: (res) => void res.destroy() },
};

/** The marks of an answer that has ended. */
const told = /"object":"chat\.completion"|\[DONE\]|"code":"\w+"/;

export const engineAttacks: readonly Attack[] = [
  ...Object.entries(lies).flatMap(([name, usage]) =>
    [true, false].map((streamed): Attack => ({
      name: `counts ${name}, ${streamed ? 'streamed' : 'whole'}`,
      mayLog: 'cost-exceeded-hold',
      run: (system) =>
        withEngine(
          system,
          stream(
            content('x'),
            finished,
            `data: {"choices":[],"usage":${usage}}\n\n`,
            'data: [DONE]\n\n',
          ),
          (engine) => askOnce(system, engine, { stream: streamed }),
        ),
    })),
  ),
  ...Object.entries(oddities).flatMap(([name, script]) =>
    [true, false].map((streamed): Attack => ({
      name: `${name}, ${streamed ? 'streamed' : 'whole'}`,
      run: (system) =>
        withEngine(system, script, (engine) => askOnce(system, engine, { stream: streamed })),
    })),
  ),
  ...endlessAttacks(),
  ...journalAttacks(),
  ...probeAttacks(),
  {
    name: 'an answer one byte at a time',
    run: (system) =>
      withEngine(
        system,
        {
          async answer(res) {
            res.writeHead(200, eventStream);
            for (const byte of content('x\u{1f30d}') + ended()) {
              res.write(byte);
              await new Promise((resolve) => setTimeout(resolve, 2));
            }
            res.end();
          },
        },
        async (engine) => {
          const text = await (await engine.ask()).text();
          const isWhole = text.includes('x\u{1f30d}');
          return isWhole ? isSettled(system, engine.caller) : { broken: text.slice(0, 200) };
        },
      ),
  },
  {
    name: 'a redirect to another server, with the token',
    async run(system) {
      const seen: (string | undefined)[] = [];
      const catcher: EngineScript = {
        answer: (res, req) => {
          seen.push(req.headers.authorization);
          res.writeHead(200, eventStream).end(ended());
        },
      };
      return withEngine(system, catcher, (other) =>
        withEngine(
          system,
          {
            answer: (res, req) => void res.writeHead(307, { location: other.url + req.url }).end(),
          },
          async (engine) => {
            await (await engine.ask()).text();
            await (await engine.ask({ stream: true })).text();
            return seen.length === 0
              ? isSettled(system, engine.caller)
              : { broken: 'the edge followed it' };
          },
        ),
      );
    },
  },
  ...impostors(),
];

/** One request, which may fail as it likes, as long as its money is right and its end is told. */
async function askOnce(
  system: HostileSystem,
  engine: HostileEngine,
  fields: Readonly<Record<string, unknown>>,
): Promise<Verdict> {
  const response = await engine.ask(fields);
  const text = await response.text();
  if (text.includes('internal_error'))
    return { broken: `a fault of the edge: ${text.slice(-300)}` };
  if (text.includes(secrets.workerToken)) return { broken: "it told the workers' token" };
  if (text.includes(new URL(engine.url).host)) return { broken: "it told the engine's address" };
  if (!told.test(text)) return { broken: `it does not tell its end: ${text.slice(-300)}` };
  const seconds = Number(response.headers.get('retry-after') ?? 0);
  if (!(seconds >= 0 && seconds <= 3_600)) return { broken: `Retry-After is ${seconds}` };
  return isSettled(system, engine.caller);
}

/** An engine that the operator adds is asked what it serves. */
function probeAttacks(): Attack[] {
  const lists: Readonly<Record<string, (res: ServerResponse) => void>> = {
    'never ends': (res) => writeForever(res.writeHead(200), Buffer.alloc(65_536, ' ')),
    'is a bomb in gzip': (res) =>
      void res.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb()),
    'names a million models': (res) =>
      void res.writeHead(200).end(
        JSON.stringify({
          object: 'list',
          data: Array.from({ length: 200_000 }, () => ({
            id: 'x',
            object: 'model',
            created: 1,
            owned_by: 'x',
          })),
        }),
      ),
  };
  return Object.entries(lists).map(([name, others]): Attack => ({
    name: `an added engine whose list of models ${name}`,
    run: (system) =>
      withEngine(
        system,
        { answer: (res) => void res.writeHead(404).end(), others },
        async (engine) => {
          const id = `added-${engine.model}`;
          const growth = await peakGrowthMiB(system, async () => {
            await system.operator.call('POST', '/workers', { id, url: engine.url });
            await new Promise((resolve) => setTimeout(resolve, 8_000));
          });
          await fetch(`${system.edge.url}/admin/workers/${id}`, {
            method: 'DELETE',
            headers: { authorization: `Bearer ${secrets.adminToken}` },
          });
          return verdictOf(growth <= growthMiBMax ? null : `the edge grew by ${growth} MiB`);
        },
      ),
  }));
}

/** Heartbeats from who is no worker, or of a worker that is another. */
function impostors(): Attack[] {
  const beat = (system: HostileSystem, token: string | null, body: object): Promise<Response> =>
    fetch(`${system.edge.url}/internal/workers/heartbeat`, {
      method: 'POST',
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
  const heartbeat = heartbeatOf({ id: 'impostor', url: 'http://127.0.0.1:1', model: servedModel });
  const tokens: Readonly<Record<string, (system: HostileSystem) => string | null>> = {
    'no token': () => null,
    'an empty token': () => '',
    "the operator's token": () => secrets.adminToken,
    "a tenant's key": ({ attacker }) => attacker.key,
    'most of the token': () => secrets.workerToken.slice(0, -1),
    'more than the token': () => `${secrets.workerToken}x`,
  };
  const heartbeats: Readonly<Record<string, object>> = {
    'of 100,000 models': { ...heartbeat, models: Array(100_000).fill(heartbeat.models[0]) },
    'without an id': { ...heartbeat, id: '' },
    'of an epoch beyond 2^53': { ...heartbeat, epoch: 2 ** 53 },
    'of a file': { ...heartbeat, url: 'file:///etc/passwd' },
    'of a load below 0': { ...heartbeat, load: { ...heartbeat.load, tokens_in_flight: -1 } },
    'with a field of its own': { ...heartbeat, admin: true },
  };
  return [
    ...Object.entries(tokens).map(([name, tokenOf]): Attack => ({
      name: `a heartbeat with ${name}`,
      run: async (system) => wasRefused(await beat(system, tokenOf(system), heartbeat)),
    })),
    ...Object.entries(heartbeats).map(([name, body]): Attack => ({
      name: `a heartbeat ${name}`,
      run: async (system) => wasRefused(await beat(system, secrets.workerToken, body)),
    })),
    {
      name: 'heartbeats of four hundred workers that are not there',
      secondsMax: 60,
      async run(system) {
        for (let at = 0; at < 400; at += 50) {
          const answers = await Promise.all(
            Array.from({ length: 50 }, (_, more) =>
              beat(system, secrets.workerToken, {
                ...heartbeat,
                id: `ghost-${at + more}`,
                models: [],
              }),
            ),
          );
          await Promise.all(answers.map((answer) => answer.text()));
        }
        const served = await system.post(system.victim, '/v1/chat/completions', {
          messages: [{ role: 'user', content: 'Hi' }],
          max_tokens: 1,
        });
        await served.text();
        return verdictOf(served.ok ? null : `the victim got ${served.status}`);
      },
    },
  ];
}
