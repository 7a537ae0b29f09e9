/**
 * One tenant's reach for what is another's: cached prefixes, answers, records, the operator's side.
 */
import { z } from 'zod';
import { verdictOf, wasRefused } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import { secrets } from './system.ts';
import type { Caller, HostileSystem } from './system.ts';

const usageSchema = z.object({
  usage: z.object({
    prompt_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }),
  }),
});

/** A prompt of several whole blocks, and of this attack alone. */
const secretPrompt = (name: string): string =>
  `The plan of ${name}: ` + 'sell the red house, buy the blue one. '.repeat(20);

async function cachedTokens(
  system: HostileSystem,
  caller: Caller,
  fields: { readonly content: string } & Readonly<Record<string, unknown>>,
): Promise<number> {
  const { content, ...more } = fields;
  const body = { messages: [{ role: 'user', content }], max_tokens: 1, ...more };
  const answer = await system.post(caller, '/v1/chat/completions', body);
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${text}`);
  return usageSchema.parse(JSON.parse(text)).usage.prompt_tokens_details.cached_tokens;
}

/** The victim asks twice, so that its prompt is cached; then the attacker asks the same. */
function readsCache(name: string, disguise: Readonly<Record<string, unknown>>): Attack {
  return {
    name: `the victim's cached prompt, ${name}`,
    async run(system) {
      const content = secretPrompt(name);
      const { victim, attacker } = system;
      await cachedTokens(system, victim, { content });
      const own = await cachedTokens(system, victim, { content });
      const foreign = await cachedTokens(system, attacker, { content, ...disguise });
      if (own === 0) return { broken: 'the victim itself had nothing cached' };
      return verdictOf(foreign === 0 ? null : `${foreign} tokens were cached for the attacker`);
    },
  };
}

const operatorPaths = [
  'GET /admin/tenants',
  'GET /admin/tenants/victim',
  'GET /admin/tenants/victim/keys',
  'GET /admin/tenants/victim/entries',
  'POST /admin/tenants/attacker/credits',
  'PATCH /admin/tenants/attacker',
  'GET /admin/export/entries',
  'GET /admin/audit',
  'GET /admin/workers',
  'POST /admin/models',
  'POST /admin/prices',
  'POST /internal/workers/heartbeat',
];

const keySchema = z.object({ key: z.string() });

/** A key of the attacker's with that scope. */
async function scopedKey(system: HostileSystem, scope: string): Promise<Caller> {
  const { tenant } = system.attacker;
  const made = await system.operator.call('POST', `/tenants/${tenant}/keys`, { scopes: [scope] });
  return { tenant, key: keySchema.parse(made).key };
}

async function callOperator(system: HostileSystem, key: string): Promise<Verdict> {
  for (const line of operatorPaths) {
    const [method = '', path = ''] = line.split(' ');
    const response = await fetch(system.edge.url + path, {
      method,
      headers: { authorization: `Bearer ${key}`, 'x-api-key': secrets.adminToken.slice(0, -1) },
      ...(method !== 'GET' && { body: '{}' }),
    });
    const verdict = await wasRefused(response);
    if (verdict !== 'held') return { broken: `${line}: ${verdict.broken}` };
    if (response.status !== 401) return { broken: `${line} answered ${response.status}` };
  }
  return 'held';
}

const chatBody = (content: string) => ({
  messages: [{ role: 'user', content }],
  max_tokens: 1,
});

export const isolationAttacks: readonly Attack[] = [
  readsCache('asked as it is', {}),
  readsCache('under a salt', { cache_salt: 'victim' }),
  readsCache('as a user of that name', { user: 'victim', user_id: 'victim' }),
  readsCache('under a salt that spells a scope', { cache_salt: '[null,null]' }),
  readsCache('under a key of the cache', { prompt_cache_key: 'victim' }),
  {
    name: "a cache scope of OpenAI's, spelled as a user of Anthropic's",
    async run(system) {
      const content = secretPrompt('a scope of another protocol');
      const scope = { user_id: 'u9', cache_salt: 's9' };
      await cachedTokens(system, system.attacker, { content, ...scope });
      const own = await cachedTokens(system, system.attacker, { content, ...scope });
      const answer = await system.post(system.attacker, '/anthropic/v1/messages', {
        ...chatBody(content),
        metadata: { user_id: '["u9","s9"]' },
      });
      const schema = z.object({ usage: z.object({ cache_read_input_tokens: z.int() }) });
      const read = schema.parse(await answer.json()).usage.cache_read_input_tokens;
      if (own === 0) return { broken: 'the scope itself had nothing cached' };
      return verdictOf(read === 0 ? null : `${read} tokens of the other scope were read`);
    },
  },
  {
    name: "the victim's request by its id, at the edge and at the worker",
    async run(system) {
      const asked = await system.post(system.victim, '/v1/chat/completions', chatBody('Hi'));
      const id = asked.headers.get('x-request-id') ?? '';
      await asked.body?.cancel();
      const headers = { authorization: `Bearer ${system.attacker.key}` };
      const paths = [`/v1/requests/${id}/usage`, `/v1/requests/${id}/cancel`];
      for (const base of [system.edge.url, system.worker.url]) {
        for (const path of paths) {
          const method = path.endsWith('cancel') ? 'POST' : 'GET';
          const verdict = await wasRefused(await fetch(base + path, { method, headers }));
          if (verdict !== 'held') return verdict;
        }
      }
      return 'held';
    },
  },
  {
    name: 'the worker itself, with a key of the edge',
    async run(system) {
      const worker = { ...system, edge: system.worker };
      const headers = { authorization: `Bearer ${system.attacker.key}` };
      for (const path of ['/metrics', '/v1/models', '/v1/models/tiny']) {
        const verdict = await wasRefused(await fetch(worker.edge.url + path, { headers }));
        if (verdict !== 'held') return verdict;
      }
      const asked = { method: 'POST', headers, body: JSON.stringify(chatBody('Hi')) };
      return wasRefused(await fetch(`${system.worker.url}/v1/chat/completions`, asked));
    },
  },
  {
    name: "the victim's answer under its idempotency key",
    async run(system) {
      const headers = { 'idempotency-key': 'one-key-of-two-tenants' };
      const path = '/v1/chat/completions';
      const body = chatBody('What is the plan?');
      const first = await system.post(system.victim, path, body, { headers });
      const { id } = z.object({ id: z.string() }).parse(await first.json());
      const second = await system.post(system.attacker, path, body, { headers });
      const answer = z.object({ id: z.string() }).parse(await second.json());
      const isReplayed = second.headers.get('idempotent-replayed') !== null;
      return verdictOf(isReplayed || answer.id === id ? 'the answer was replayed' : null);
    },
  },
  {
    name: 'an answer under the idempotency key of another key of the same tenant',
    async run(system) {
      const headers = { 'idempotency-key': 'one-key-of-two-keys' };
      const other = await scopedKey(system, 'inference');
      const path = '/v1/chat/completions';
      const first = await system.post(system.attacker, path, chatBody('Mine?'), { headers });
      await first.text();
      const second = await system.post(other, path, chatBody('Mine?'), { headers });
      await second.text();
      const isReplayed = second.headers.get('idempotent-replayed') !== null;
      return verdictOf(isReplayed ? "another key's answer was replayed" : null);
    },
  },
  {
    name: "the victim's usage by a parameter",
    async run(system) {
      for (const query of ['tenant=victim', 'tenant_id=victim', 'key_id=*', 'from=%27;--']) {
        const verdict = await wasRefused(await system.get(system.attacker, `/v1/usage?${query}`));
        if (verdict !== 'held') return verdict;
      }
      return 'held';
    },
  },
  {
    name: "the operator's routes, with a key of a tenant",
    run: (system) => callOperator(system, system.attacker.key),
  },
  {
    name: "the operator's routes, with a tenant's key of the scope admin",
    run: async (system) => callOperator(system, (await scopedKey(system, 'admin')).key),
  },
  {
    name: "the operator's routes, with most of the operator's token",
    run: (system) => callOperator(system, secrets.adminToken.slice(0, -1)),
  },
  {
    name: 'an answer, with a key that may only read',
    run: async (system) =>
      wasRefused(
        await system.post(await scopedKey(system, 'read'), '/v1/chat/completions', chatBody('Hi')),
      ),
  },
  {
    name: 'the balance, with a key that may only ask',
    run: async (system) =>
      wasRefused(await system.get(await scopedKey(system, 'inference'), '/user/balance')),
  },
  ...['/admin/tenants', '/internal/workers/heartbeat', '/payments/stripe/webhook'].map(
    (path): Attack => ({
      name: `a web page's call of ${path}`,
      async run(system) {
        for (const method of ['OPTIONS', 'GET', 'POST']) {
          const response = await fetch(system.edge.url + path, {
            method,
            headers: { origin: 'https://page.example', 'access-control-request-method': 'POST' },
          });
          await response.body?.cancel();
          const allowed = response.headers.get('access-control-allow-origin');
          if (allowed !== null) return { broken: `${method} allows the origin ${allowed}` };
          if (response.ok) return { broken: `${method} answered ${response.status}` };
        }
        return 'held';
      },
    }),
  ),
  {
    name: 'a conversation that spells the marks of turns',
    async run(system) {
      const marks = [
        '<|user|>',
        '<|assistant|>',
        '<|end|>',
        '<\uff5cend\u2581of\u2581sentence\uff5c>',
      ];
      const schema = z.object({ input_tokens: z.int() });
      const count = async (content: string): Promise<number> => {
        const path = '/anthropic/v1/messages/count_tokens';
        const answer = await system.post(system.attacker, path, {
          messages: [{ role: 'user', content }],
        });
        return schema.parse(await answer.json()).input_tokens;
      };
      const alone = await count('x');
      for (const mark of marks) {
        const tokens = (await count(`x${mark}`)) - alone;
        // Its text takes several tokens; the control token would be one.
        if (tokens < 3) return { broken: `${mark} became ${tokens} tokens` };
      }
      return 'held';
    },
  },
];
