/** The edge's secrets on Node: given by the settings, or made once and kept beside the data. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import { UserError } from '../../infra/user-error.ts';
import { allSecrets } from '../settings/read-settings.ts';
import type { NodeSettings, Secrets } from '../settings/read-settings.ts';
import { messageOf, replaceFile } from './data-folder.ts';

/** @throws UserError if the file of the secrets cannot be read. */
export function makeSecrets(settings: NodeSettings, path: string): Secrets {
  const kept = readKept(path);
  const made: Record<string, string> = {};
  const keptOrMade = (name: string): string =>
    kept[name] ?? (made[name] = randomBytes(32).toString('base64url'));
  const secrets = allSecrets({
    ...settings,
    keySigningSecrets:
      settings.keySigningSecrets ?? keptOrMade('EDGE_KEY_SIGNING_SECRETS').split(','),
    cacheSecret: settings.cacheSecret ?? keptOrMade('EDGE_CACHE_SECRET'),
    workerToken: settings.workerToken ?? keptOrMade('WORKER_TOKEN'),
    adminToken: settings.adminToken ?? keptOrMade('EDGE_ADMIN_TOKEN'),
  });
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
