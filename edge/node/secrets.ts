/** The edge's secrets on Node: given by the settings, or made once and kept beside the data. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { UserError } from '../../infra/user-error.ts';
import { allSecrets } from '../settings/read-settings.ts';
import type { NodeSettings, Secrets as RequiredSecrets } from '../settings/read-settings.ts';
import { messageOf, replaceFile } from './data-folder.ts';

/** The secrets, the keys of receipts among them: an edge on Node makes what it is not given. */
export interface Secrets extends RequiredSecrets {
  readonly receiptKeys: readonly string[];
}

/** @throws UserError if the file of the secrets cannot be read. */
export function makeSecrets(settings: NodeSettings, path: string): Secrets {
  const kept = readKept(path);
  const made: Record<string, string> = {};
  const keptOrMade = (name: string): string =>
    kept[name] ?? (made[name] = randomBytes(32).toString('base64url'));
  const required = allSecrets({
    ...settings,
    keySigningSecrets:
      settings.keySigningSecrets ?? keptOrMade('EDGE_KEY_SIGNING_SECRETS').split(','),
    cacheSecret: settings.cacheSecret ?? keptOrMade('EDGE_CACHE_SECRET'),
    workerToken: settings.workerToken ?? keptOrMade('WORKER_TOKEN'),
    adminToken: settings.adminToken ?? keptOrMade('EDGE_ADMIN_TOKEN'),
  });
  const given = settings.receiptKeys;
  const secrets = {
    ...required,
    receiptKeys: given.length > 0 ? given : keptOrMade('EDGE_RECEIPT_KEYS').split(','),
  };
  if (Object.keys(made).length > 0) {
    const lines = Object.entries({ ...kept, ...made }).map(([name, value]) => `${name}=${value}\n`);
    replaceFile(path, lines.join(''));
  }
  return secrets;
}

function readKept(path: string): Readonly<Record<string, string | undefined>> {
  try {
    return existsSync(path) ? parseEnv(readFileSync(path, 'utf8')) : {};
  } catch (cause) {
    throw new UserError(
      `${path} cannot be read (${messageOf(cause)}); run the edge as the user that owns it`,
      { cause },
    );
  }
}
