/** Every topic of attacks, by the name that `--only` takes. */
import type { Attack } from './attack.ts';
import { keyAttacks } from './keys.ts';
import { requestLineAttacks } from './request-line.ts';

export const topics: Readonly<Record<string, readonly Attack[]>> = {
  keys: keyAttacks,
  'request-line': requestLineAttacks,
};
