/** Keys that were not given out: forged, borrowed, cut, revoked. */
import { createHmac } from 'node:crypto';
import { z } from 'zod';
import { wasRefused, verdictOf } from './attack.ts';
import type { Attack } from './attack.ts';
import type { HostileSystem } from './system.ts';

type Parts = readonly [tenant: string, id: string, secret: string, mac: string];

const joined = (parts: Parts): string => `sk-sift-${parts.join('.')}`;

/**
 * Forgeries that an attacker makes of its own key, and of the parts of the victim's that it has
 * heard.
 */
const forgeries: Readonly<Record<string, (own: Parts, victim: Parts) => string>> = {
  "the victim's name before the attacker's own key": ([, ...rest], [tenant]) =>
    joined([tenant, ...rest]),
  "the victim's key with the attacker's mac": ([, , , mac], [tenant, id, secret]) =>
    joined([tenant, id, secret, mac]),
  'a key without its mac': ([tenant, id, secret]) => `sk-sift-${tenant}.${id}.${secret}`,
  'a mac of zeros': ([tenant, id, secret]) => joined([tenant, id, secret, 'A'.repeat(22)]),
  'a mac made with an empty secret': (_, [tenant, id, secret]) => {
    const mac = createHmac('sha256', '').update(`${tenant}.${id}.${secret}`).digest();
    return joined([tenant, id, secret, mac.subarray(0, 16).toString('base64url')]);
  },
  'another spelling of the same mac': ([tenant, id, secret, mac]) => {
    // The last character of 16 bytes carries four bits that count for nothing.
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const last = alphabet.indexOf(mac.slice(-1));
    return joined([tenant, id, secret, mac.slice(0, -1) + alphabet[last ^ 1]]);
  },
  'the dot between id and secret moved': ([tenant, id, secret, mac]) =>
    joined([tenant, id + secret.slice(0, 1), secret.slice(1), mac]),
  'the dot between name and id moved': ([tenant, id, secret, mac]) =>
    joined([tenant.slice(0, -1), tenant.slice(-1) + id, secret, mac]),
  'a path for a name': ([, ...rest]) => joined(['../victim', ...rest]),
  'a key of 100 KB': (own) => joined(own) + 'A'.repeat(8_000),
  'two keys in one header': (own, victim) => `${joined(own)}, ${joined(victim)}`,
  'the operator’s token': () => 'admin-token-of-the-attacks',
  'the workers’ token': () => 'worker-token-of-the-attacks',
};

const keysSchema = z.object({ keys: z.array(z.object({ key_id: z.string() })) });

export const keyAttacks: readonly Attack[] = [
  ...Object.entries(forgeries).map(([name, forge]): Attack => ({
    name,
    async run(system) {
      const key = forge(partsOf(system.attacker.key), partsOf(system.victim.key));
      return wasRefused(await askWith(system, key));
    },
  })),
  {
    name: 'a revoked key, at the next request',
    async run(system) {
      const caller = await system.addTenant('revoked');
      const before = await askWith(system, caller.key);
      await before.body?.cancel();
      const path = `/tenants/${caller.tenant}/keys`;
      const { keys } = keysSchema.parse(await system.operator.call('GET', path));
      await system.operator.call('PATCH', `${path}/${keys[0]?.key_id}`, { status: 'revoked' });
      const after = await askWith(system, caller.key);
      return before.ok ? wasRefused(after) : { broken: `the key never worked: ${before.status}` };
    },
  },
  {
    name: 'keys that exist and keys that do not are answered alike',
    async run(system) {
      const [tenant, id, , mac] = partsOf(system.victim.key);
      const texts: string[] = [];
      for (const key of [joined([tenant, id, 'x'.repeat(32), mac]), 'sk-sift-nobody', 'x']) {
        const response = await askWith(system, key);
        texts.push(`${response.status} ${await response.text()}`);
      }
      return verdictOf(new Set(texts).size === 1 ? null : `answers differ: ${texts.join(' | ')}`);
    },
  },
];

function askWith(system: HostileSystem, key: string): Promise<Response> {
  const body = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 };
  return system.post({ tenant: 'forged', key }, '/v1/chat/completions', body);
}

function partsOf(key: string): Parts {
  const [tenant = '', id = '', secret = '', mac = ''] = key.slice('sk-sift-'.length).split('.');
  return [tenant, id, secret, mac];
}
