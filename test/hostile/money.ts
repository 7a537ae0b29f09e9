/** Money under races: spending at once, keys and limits that change, clients that leave. */
import { z } from 'zod';
import { verdictOf, wasRefused } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import type { Caller, HostileSystem } from './system.ts';

const path = '/v1/chat/completions';
const body = (content = 'Hi', more: Readonly<Record<string, unknown>> = {}) => ({
  messages: [{ role: 'user', content }],
  max_tokens: 4,
  ...more,
});

const tenantSchema = z.object({
  balance: z.object({ granted_nano_usd: z.int(), held_nano_usd: z.int() }),
});
const entriesSchema = z.object({
  entries: z.array(z.object({ kind: z.string(), amount_nano_usd: z.int() })),
});
const keysSchema = z.object({ keys: z.array(z.object({ key_id: z.string() })) });

const settledMsMax = 20_000;

/** The balance once nothing is held any more. */
async function balanceInTheEnd(system: HostileSystem, { tenant }: Caller): Promise<number> {
  const untilMs = performance.now() + settledMsMax;
  for (;;) {
    const answer = await system.operator.call('GET', `/tenants/${tenant}`);
    const { granted_nano_usd: left, held_nano_usd: held } = tenantSchema.parse(answer).balance;
    if (held === 0) return left;
    if (performance.now() > untilMs) throw new Error(`${held} nano-USD stay held`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function postedOf(system: HostileSystem, { tenant }: Caller): Promise<number[]> {
  const said = await system.operator.call('GET', `/tenants/${tenant}/entries?limit=1000`);
  const { entries } = entriesSchema.parse(said);
  return entries.flatMap((entry) => (entry.kind === 'posted' ? [entry.amount_nano_usd] : []));
}

/**
 * Checks that the amount granted less the amount posted is left, and that no part of it is below 0.
 */
async function addsUp(system: HostileSystem, caller: Caller, granted: number): Promise<Verdict> {
  const left = await balanceInTheEnd(system, caller);
  const posted = await postedOf(system, caller);
  const spent = posted.reduce((sum, amount) => sum - amount, 0);
  return verdictOf(
    left < 0 ? `the balance is ${left}` : null,
    left + spent === granted ? null : `${left} are left and ${spent} were spent of ${granted}`,
  );
}

/** Begins a stream, changes something, and reads on. */
function changesDuringStream(
  name: string,
  change: (system: HostileSystem, caller: Caller) => Promise<unknown>,
): Attack {
  return {
    name: `${name} while a stream goes on`,
    async run(system) {
      const granted = 1_000_000_000;
      const caller = await system.addTenant(name, granted);
      const asked = body('Tell me.', { max_tokens: 64, stream: true });
      const response = await system.post(caller, path, asked);
      const reader = response.body?.getReader();
      await reader?.read();
      await change(system, caller);
      for (let read = await reader?.read(); read && !read.done;) read = await reader?.read();
      const posted = await postedOf(system, caller);
      const settled = await addsUp(system, caller, granted);
      if (settled !== 'held') return settled;
      return verdictOf(posted.length <= 1 ? null : `it was billed ${posted.length} times`);
    },
  };
}

async function revoke(system: HostileSystem, { tenant }: Caller): Promise<void> {
  const keys = `/tenants/${tenant}/keys`;
  const { keys: all } = keysSchema.parse(await system.operator.call('GET', keys));
  for (const { key_id: id } of all) {
    await system.operator.call('PATCH', `${keys}/${id}`, { status: 'revoked' });
  }
}

const noLimits = {
  requests_per_minute: null,
  tokens_per_minute: null,
  concurrent_requests: null,
};

const impossible: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'as many tokens as a number holds': { max_tokens: Number.MAX_SAFE_INTEGER },
  'eight answers of as many tokens': { max_tokens: Number.MAX_SAFE_INTEGER, n: 8 },
  'a hundred and twenty-eight answers': { max_tokens: 65_000, n: 128 },
};

export const moneyAttacks: readonly Attack[] = [
  {
    name: 'a hundred requests at once of who can pay a few',
    secondsMax: 60,
    async run(system) {
      const granted = 2_000_000;
      const caller = await system.addTenant('spends at once', granted);
      const answers = await Promise.all(
        Array.from({ length: 100 }, () => system.post(caller, path, body())),
      );
      await Promise.all(answers.map((answer) => answer.text()));
      const odd = answers.find(({ status }) => ![200, 402, 429].includes(status));
      if (odd !== undefined) return { broken: `one was answered ${odd.status}` };
      return addsUp(system, caller, granted);
    },
  },
  {
    name: 'sixty clients that leave at any moment',
    secondsMax: 60,
    async run(system) {
      const granted = 1_000_000_000;
      const caller = await system.addTenant('leaves', granted);
      const leaving = Array.from({ length: 60 }, async (_, at) => {
        const client = new AbortController();
        setTimeout(() => client.abort(), at * 7);
        const asked = body('Go on.', { max_tokens: 100, stream: at % 2 === 0 });
        const response = await system.post(caller, path, asked, { signal: client.signal });
        await response.text();
      });
      await Promise.allSettled(leaving);
      return addsUp(system, caller, granted);
    },
  },
  {
    name: 'one idempotency key forty times at once',
    secondsMax: 60,
    async run(system) {
      const granted = 1_000_000_000;
      const caller = await system.addTenant('same key at once', granted);
      const headers = { 'idempotency-key': 'forty-times' };
      const answers = await Promise.all(
        Array.from({ length: 40 }, () => system.post(caller, path, body(), { headers })),
      );
      await Promise.all(answers.map((answer) => answer.text()));
      const settled = await addsUp(system, caller, granted);
      if (settled !== 'held') return settled;
      const posted = await postedOf(system, caller);
      return verdictOf(posted.length === 1 ? null : `it was billed ${posted.length} times`);
    },
  },
  {
    name: 'one idempotency key for two requests',
    async run(system) {
      const headers = { 'idempotency-key': 'two-requests' };
      const first = await system.post(system.attacker, path, body('One.'), { headers });
      await first.text();
      return wasRefused(await system.post(system.attacker, path, body('Two.'), { headers }));
    },
  },
  changesDuringStream('the key is revoked', revoke),
  changesDuringStream('the account is suspended', (system, { tenant }) =>
    system.operator.call('PATCH', `/tenants/${tenant}`, { status: 'suspended' }),
  ),
  changesDuringStream('all limits fall to nothing', (system, { tenant }) =>
    system.operator.call('PATCH', `/tenants/${tenant}`, {
      limits: { ...noLimits, tokens_per_minute: 0, concurrent_requests: 0 },
    }),
  ),
  ...Object.entries(impossible).map(([name, more]): Attack => ({
    name: `${name}, of who has a cent`,
    async run(system) {
      const caller = await system.addTenant(name, 10_000_000);
      const refused = await wasRefused(await system.post(caller, path, body('Hi', more)));
      return refused === 'held' ? addsUp(system, caller, 10_000_000) : refused;
    },
  })),
  ...['/v1/chat/completions', '/v1/completions', '/anthropic/v1/messages'].map((route): Attack => ({
    name: `${route} without money`,
    async run(system) {
      const asked = route === '/v1/completions' ? { prompt: 'Hi', max_tokens: 1 } : body();
      const response = await system.post(system.poor, route, asked);
      const { status } = response;
      const refused = await wasRefused(response);
      return refused === 'held' && status !== 402 ? { broken: `it answered ${status}` } : refused;
    },
  })),
];
