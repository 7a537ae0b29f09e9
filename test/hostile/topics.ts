/** Every topic of attacks, by the name that `--only` takes. */
import type { Attack } from './attack.ts';
import { bodyAttacks } from './bodies.ts';
import { connectionAttacks } from './connections.ts';
import { engineAttacks } from './engines.ts';
import { isolationAttacks } from './isolation.ts';
import { jsonAttacks } from './json.ts';
import { damageAttacks } from './damage.ts';
import { keyAttacks } from './keys.ts';
import { moneyAttacks } from './money.ts';
import { requestLineAttacks } from './request-line.ts';
import { stripeAttacks } from './stripe.ts';
import { textAttacks } from './texts.ts';

export const topics: Readonly<Record<string, readonly Attack[]>> = {
  damage: damageAttacks,
  keys: keyAttacks,
  isolation: isolationAttacks,
  'request-line': requestLineAttacks,
  json: jsonAttacks,
  stripe: stripeAttacks,
  texts: textAttacks,
  money: moneyAttacks,
  connections: connectionAttacks,
  engines: engineAttacks,
  bodies: bodyAttacks,
};
