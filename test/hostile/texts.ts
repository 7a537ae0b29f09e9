/**
 * Requests that take long to read: large texts, schemas and bodies, three at a time. Meanwhile the
 * worker's health and a small request of another tenant have to be answered, and afterwards the
 * longest time for which its HTTP thread stood still has to be short.
 */
import { secrets } from './system.ts';
import type { Caller, HostileSystem } from './system.ts';
import { verdictOf } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';

const bodyBytes = 8 * 2 ** 20;
/** The bar is 50 ms on a quiet machine; this one tells seconds from what a busy one does. */
const blockMsMax = 2_000;
const senders = 3;

const repeated = (text: string): string =>
  text.repeat(Math.floor((bodyBytes - 1024) / Buffer.byteLength(text)));
const chat = (content: string, more: object = {}): Record<string, unknown> => ({
  messages: [{ role: 'user', content }],
  max_tokens: 1,
  ...more,
});
const held = (schema: object): object =>
  chat('Hi', {
    response_format: { type: 'json_schema', json_schema: { name: 'a', strict: true, schema } },
  });
const ofPattern = (pattern: string): object =>
  held({
    type: 'object',
    properties: { a: { type: 'string', pattern } },
    required: ['a'],
    additionalProperties: false,
  });

const chats: Readonly<Record<string, () => object>> = {
  'blanks, 8 MB': () => chat(repeated(' ')),
  'one letter, 8 MB': () => chat(repeated('a')),
  'emoji, 8 MB': () => chat(repeated('😀')),
  'digits, 8 MB': () => chat(repeated('1')),
  'line ends, 8 MB': () => chat(repeated('\n')),
  'control tokens, 8 MB': () => chat(repeated('<|user|>')),
  'blanks that fit': () => chat(' '.repeat(2 ** 20)),
  'a repeat of repeats': () => ofPattern('(?:(?:a?){200}){200}'),
  'a repeat of repeats, anchored': () => ofPattern('^(?:(?:a?){100}){100}$'),
  'a pattern with 2^20 states': () => ofPattern('^(a|b)*a(a|b){20}$'),
  'a thousand lengths': () =>
    held({
      type: 'object',
      properties: Object.fromEntries(
        Array.from({ length: 1000 }, (_, index) => [
          `p${index}`,
          { type: 'string', maxLength: index },
        ]),
      ),
    }),
};

const texts: Readonly<Record<string, () => object>> = {
  'a prompt of blanks, 8 MB': () => ({ prompt: repeated(' '), max_tokens: 1 }),
  'a prompt of two million tokens': () => ({
    prompt: Array.from({ length: 2 ** 21 }, () => 1),
    max_tokens: 1,
  }),
  'log-probabilities of a long prompt': () => ({
    prompt: Array.from({ length: 8192 }, () => 9),
    max_tokens: 1,
    echo: true,
    logprobs: 20,
  }),
  'eight echoes of a long prompt': () => ({
    prompt: ' '.repeat(2 ** 19),
    max_tokens: 1,
    echo: true,
    n: 8,
  }),
};

export const textAttacks: readonly Attack[] = [
  ...Object.entries(chats).map(([name, bodyOf]) => attackOf(name, '/v1/chat/completions', bodyOf)),
  ...Object.entries(texts).map(([name, bodyOf]) => attackOf(name, '/v1/completions', bodyOf)),
];

function attackOf(name: string, path: string, bodyOf: () => object): Attack {
  return {
    name,
    secondsMax: 120,
    async run(system) {
      await longestBlockMs(system);
      const body = Buffer.from(JSON.stringify({ model: 'tiny', ...bodyOf() }));
      const sent = Array.from({ length: senders }, () => answerOf(system, { path, body }));
      const attack = { isOver: false };
      const all = Promise.all(sent).finally(() => (attack.isOver = true));
      // It is awaited below; until then one that fails is nobody's.
      all.catch(() => {});
      const others: Verdict[] = [];
      do others.push(await othersAreServed(system, system.victim));
      while (!attack.isOver);
      const faults = await all;
      const blockMs = await longestBlockMs(system);
      const block =
        blockMs > blockMsMax
          ? `the worker's HTTP thread stood for ${Math.round(blockMs)} ms`
          : null;
      return others.find((each) => each !== 'held') ?? verdictOf(...faults, block);
    },
  };
}

/** Whatever the answer, no fault of the server. */
async function answerOf(
  system: HostileSystem,
  { path, body }: { path: string; body: Buffer<ArrayBuffer> },
): Promise<string | null> {
  const response = await system.post(system.attacker, path, body);
  const text = await response.text();
  const isFault = response.status >= 500 && response.status !== 503;
  return isFault ? `it answered ${response.status} ${text.slice(0, 200)}` : null;
}

async function othersAreServed(system: HostileSystem, victim: Caller): Promise<Verdict> {
  const health = await fetch(`${system.worker.url}/health`);
  const answer = await system.post(victim, '/v1/chat/completions', chat('Hi'));
  const text = await answer.text();
  return verdictOf(
    health.status === 200 ? null : `the worker's health was ${health.status}`,
    answer.status === 200 ? null : `another tenant got ${answer.status} ${text.slice(0, 200)}`,
  );
}

/** Since the last call. */
async function longestBlockMs(system: HostileSystem): Promise<number> {
  const headers = { authorization: `Bearer ${secrets.workerToken}` };
  const response = await fetch(`${system.worker.url}/metrics`, { headers });
  const seconds = /^sift_event_loop_delay_max_seconds (\S+)$/m.exec(await response.text())?.[1];
  if (seconds === undefined) throw new Error('the worker does not tell how long it stood still');
  return Number(seconds) * 1000;
}
