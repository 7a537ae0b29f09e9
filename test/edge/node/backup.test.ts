/** Backups are made beside an edge that serves, and are put back only if they are sound. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import { runCli } from '../../../edge/cli/cli.ts';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { dollar, runtimeSecrets, startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import type { HomeAudit } from '../../support/edge/runtime-system.ts';
import { operatorOf } from '../../support/edge/seed.ts';
import { lockFromOutside } from '../../support/edge/lock-file.ts';

function newFolder(): string {
  const folder = testFolder();
  onTestFinished(folder.remove);
  return folder.path;
}

/** The command line as an operator has it. */
function admin(...args: readonly string[]) {
  const child = spawn(process.execPath, ['infra/sift.ts', 'admin', ...args], {
    env: { ...process.env, EDGE_DATA: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => (said += String(chunk)));
  }
  const ended = once(child, 'close').then(([code]) => ({ code: Number(code), said }));
  return { child, ended };
}

/** Runs the command in this process, which starts much sooner. */
async function run(...args: readonly string[]): Promise<{ code: number; said: string }> {
  const said: string[] = [];
  const print = (text: string): void => void said.push(text);
  const code = await runCli(args, { env: {}, fetch, print, printError: print });
  return { code, said: said.join('\n') };
}

const backUp = (data: string, into: string) => run('backup', into, '--data', data);
const restore = (backup: string, data: string, ...flags: string[]) =>
  run('restore', backup, data, ...flags);

async function startOn(folder: string) {
  const edge = await startNode(folder, { env: runtimeSecrets });
  onTestFinished(() => edge.close());
  return operatorOf(edge.url, runtimeSecrets.EDGE_ADMIN_TOKEN);
}

/** A backup of two tenants that have used the system, whose edge has stopped. */
async function makeBackup() {
  const system = await startRuntimeSystem();
  for (const tenant of ['acme', 'other'] as const) await (await system.ask(tenant)).text();
  await system.stop();
  const folder = newFolder();
  const backup = join(folder, 'backup');
  expect(await backUp(system.folder, backup)).toMatchObject({ code: 0 });
  return { system, folder, backup };
}

test('a backup made under load holds books that agree, and its keys work again', async () => {
  const system = await startRuntimeSystem();
  const enough = new AbortController();
  let answered = 0;
  const load = (['acme', 'other', 'acme', 'other'] as const).map(async (tenant) => {
    while (!enough.signal.aborted) {
      const answer = await system.ask(tenant);
      await answer.text();
      expect(answer.status).toBe(200);
      answered++;
    }
  });
  await expect.poll(() => answered).toBeGreaterThan(10);
  const folder = newFolder();
  const backup = join(folder, 'made', 'backup');
  const made = await admin('backup', backup, '--data', system.folder).ended;
  const answeredBefore = answered;
  await expect.poll(() => answered).toBeGreaterThan(answeredBefore);
  enough.abort();
  await Promise.all(load);
  expect(made).toMatchObject({ code: 0 });
  expect(statSync(backup).mode & 0o777).toBe(0o700);
  for (const file of ['directory.db', 'fleet.json', 'secrets.env', 'tenants/acme.db']) {
    expect(statSync(join(backup, file)).mode & 0o777).toBe(0o600);
  }

  const data = join(folder, 'data');
  const put = await admin('restore', backup, data).ended;
  expect(put).toMatchObject({ code: 0 });
  await system.stop();
  const operator = await startOn(data);
  // The audit route documents this form.
  const books = (await operator.call('GET', '/audit')) as HomeAudit;
  expect(books).toMatchObject({ ok: true, findings: [] });
  expect(books.total.granted_nano_usd).toBeLessThan(2 * dollar);
  expect(await operator.call('GET', '/tenants/acme/keys')).toMatchObject({
    keys: [{ status: 'active' }],
  });
});

test('a backup never writes over anything, nor into the data that it is of', async () => {
  const { system, folder, backup } = await makeBackup();
  const before = readFileSync(join(backup, 'backup.json'));
  expect(await backUp(system.folder, backup)).toMatchObject({
    code: 1,
    said: expect.stringContaining('name a new folder'),
  });
  expect(readFileSync(join(backup, 'backup.json'))).toEqual(before);
  expect(await backUp(system.folder, join(system.folder, 'backup'))).toMatchObject({
    code: 1,
    said: expect.stringContaining('lies in the data folder'),
  });
  expect(await backUp(folder, join(folder, 'second'))).toMatchObject({
    code: 1,
    said: expect.stringContaining('is no data folder of an edge'),
  });
});

test('a backup that was killed is recognised', async () => {
  const { system, folder } = await makeBackup();
  const held = await lockFromOutside(join(system.folder, 'tenants/other.db'), 'readers-too');
  onTestFinished(() => held.release());
  const backup = join(folder, 'killed');
  const { child, ended } = admin('backup', backup, '--data', system.folder);
  await expect.poll(() => existsSync(join(backup, 'tenants/other.db'))).toBe(true);
  child.kill('SIGKILL');
  await ended;
  expect(existsSync(join(backup, 'tenants/acme.db'))).toBe(true);
  const data = join(folder, 'data');
  expect(await restore(backup, data)).toMatchObject({
    code: 1,
    said: expect.stringContaining('is no complete backup: it has no backup.json'),
  });
  expect(existsSync(data)).toBe(false);
});

test('a tenant that cannot be copied is named, and the others are put back', async () => {
  const { system, folder } = await makeBackup();
  writeFileSync(join(system.folder, 'tenants/other.db'), 'x'.repeat(10_000));
  const backup = join(folder, 'without-other');
  expect(await backUp(system.folder, backup)).toMatchObject({
    code: 1,
    said: expect.stringContaining('other (damaged)'),
  });
  const data = join(folder, 'data');
  expect(await restore(backup, data)).toMatchObject({ code: 0 });
  const operator = await startOn(data);
  expect(await operator.call('GET', '/audit')).toMatchObject({
    findings: [],
    unavailable: [{ tenant: 'other', reason: 'missing' }],
  });
});

test.each<[name: string, harm: (backup: string) => void, said: RegExp]>([
  [
    'a file that has changed',
    (backup) => appendFileSync(join(backup, 'tenants/acme.db'), 'x'),
    /tenants\/acme\.db is not as it was written/,
  ],
  [
    'a file that is missing',
    (backup) => rmSync(join(backup, 'tenants/acme.db')),
    /tenants\/acme\.db is missing/,
  ],
  [
    'a manifest that names a path out of it',
    (backup) => edit(backup, (text) => text.replace('tenants/acme.db', '../../acme.db')),
    /backup\.json is damaged/,
  ],
  [
    "another tenant's database under a tenant's name",
    (backup) => {
      const acme = fileOf(backup, 'tenants/acme.db');
      const other = fileOf(backup, 'tenants/other.db');
      cpSync(join(backup, 'tenants/other.db'), join(backup, 'tenants/acme.db'));
      edit(backup, (text) =>
        text
          .replace(acme.sha256, other.sha256)
          .replace(`"bytes": ${acme.bytes}`, `"bytes": ${other.bytes}`),
      );
    },
    /of the tenant other/,
  ],
])('%s is not put back', async (_, harm, said) => {
  const { folder, backup } = await makeBackup();
  harm(backup);
  const data = join(folder, 'data');
  const refused = await restore(backup, data);
  expect(refused).toMatchObject({ code: 1, said: expect.stringMatching(said) });
  expect(readdirSync(folder)).toEqual(['backup']);
});

test('a backup whose books do not agree is put back only if that is asked for', async () => {
  const { system, folder } = await makeBackup();
  const client = new Database(join(system.folder, 'tenants/acme.db'));
  client.exec('UPDATE account SET granted_nano_usd = granted_nano_usd + 1');
  client.close();
  const backup = join(folder, 'cooked');
  expect(await backUp(system.folder, backup)).toMatchObject({ code: 0 });
  const data = join(folder, 'data');
  expect(await restore(backup, data)).toMatchObject({
    code: 1,
    said: expect.stringMatching(/tenant acme: the granted balance is .*--despite-findings/),
  });
  expect(await restore(backup, data, '--despite-findings')).toMatchObject({ code: 0 });
});

test('a backup whose ledger lacks a payment that its directory knows is put back only if asked', async () => {
  const { system, folder } = await makeBackup();
  const directory = new Database(join(system.folder, 'directory.db'));
  directory.exec(
    `INSERT INTO payment (source, tenant, amount_nano_usd, state, began_at_ms)
     VALUES ('stripe:cs_lost', 'acme', 5000000000, 'credited', 1)`,
  );
  directory.close();
  const backup = join(folder, 'older');
  expect(await backUp(system.folder, backup)).toMatchObject({ code: 0 });
  const data = join(folder, 'data');
  const lost =
    /tenant acme: the payment stripe:cs_lost of 5\.00 USD .* credits add acme 5\.00 --kind topped-up --source/;
  expect(await restore(backup, data)).toMatchObject({
    code: 1,
    said: expect.stringMatching(lost),
  });
  expect(existsSync(data)).toBe(false);
  expect(await restore(backup, data, '--despite-findings')).toMatchObject({ code: 0 });
});

test('a folder in use, or with anything in it, is left alone', async () => {
  const { system, folder, backup } = await makeBackup();
  await system.startAgain();
  expect(await restore(backup, system.folder)).toMatchObject({
    code: 1,
    said: expect.stringContaining(`is in use by another edge, process ${process.pid}`),
  });
  const occupied = join(folder, 'occupied');
  mkdirSync(occupied);
  expect(await restore(backup, occupied)).toMatchObject({ code: 0 });
  expect(await restore(backup, occupied)).toMatchObject({
    code: 1,
    said: expect.stringContaining('is not empty'),
  });
});

function edit(backup: string, change: (text: string) => string): void {
  const path = join(backup, 'backup.json');
  writeFileSync(path, change(readFileSync(path, 'utf8')));
}

function fileOf(backup: string, path: string): { bytes: number; sha256: string } {
  // The manifest's schema has this form.
  const { files } = JSON.parse(readFileSync(join(backup, 'backup.json'), 'utf8')) as {
    files: { path: string; bytes: number; sha256: string }[];
  };
  const found = files.find((file) => file.path === path);
  if (found === undefined) throw new Error(`the backup has no ${path}`);
  return found;
}
