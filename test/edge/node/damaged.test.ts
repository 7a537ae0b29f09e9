/**
 * A tenant's database that is gone, cut or another's: never taken for a new one, and never in the
 * others' way.
 */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
import { describe, expect, test } from 'vitest';
import { dollar, runtimeSecrets, startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import type { RuntimeSystem } from '../../support/edge/runtime-system.ts';

const damages: Readonly<Record<string, { reason: string; damage: (path: string) => void }>> = {
  'is missing': { reason: 'missing', damage: (path) => rmSync(path) },
  'is empty': { reason: 'damaged', damage: (path) => truncateSync(path, 0) },
  'is cut in half': {
    reason: 'damaged',
    damage: (path) => truncateSync(path, Math.floor(statSync(path).size / 2)),
  },
  'is cut within its header': { reason: 'damaged', damage: (path) => truncateSync(path, 50) },
  'is garbage': { reason: 'damaged', damage: (path) => writeFileSync(path, 'x'.repeat(8_192)) },
  'is a folder': {
    reason: 'damaged',
    damage(path) {
      rmSync(path);
      mkdirSync(path);
    },
  },
  "is another tenant's": {
    reason: 'foreign',
    damage: (path) => copyFileSync(join(path, '../other.db'), path),
  },
  'is another program’s': {
    reason: 'damaged',
    damage(path) {
      rmSync(path);
      const client = new Database(path);
      client.exec('CREATE TABLE notes (text TEXT)');
      client.close();
    },
  },
  'is new and has no name': {
    reason: 'damaged',
    damage(path) {
      rmSync(path);
      new Database(path).exec('VACUUM').close();
    },
  },
};

async function expectListed(system: RuntimeSystem, reason: string): Promise<void> {
  const operator = system.operator();
  const listed = { tenant: 'acme', reason, advice: expect.stringContaining('tenant acme') };
  const audit = await operator.call('GET', '/audit');
  expect(audit).toMatchObject({ ok: false, findings: [], unavailable: [listed] });
  expect(await operator.call('GET', '/prefixes')).toMatchObject({ unavailable: [listed] });
  expect(await operator.call('GET', '/tenants')).toMatchObject({
    tenants: [
      { id: 'acme', limits: null, unavailable: listed.advice },
      { id: 'other', unavailable: null },
    ],
  });
  await expect(operator.call('GET', '/tenants/acme')).rejects.toThrow(/503 .*tenant acme/);
  for (const path of ['/export/usage', '/export/entries']) {
    const rows = await rowsOf(system, path);
    expect(rows).toContainEqual(expect.objectContaining({ unavailable: listed.advice }));
    expect(rows).toContainEqual(expect.objectContaining({ tenant: 'other', unavailable: null }));
    expect(JSON.stringify(rows)).not.toContain(system.folder);
  }
  expect(JSON.stringify(audit)).not.toContain(system.folder);
}

async function rowsOf(system: RuntimeSystem, path: string): Promise<unknown[]> {
  const answer = await fetch(`${system.edge().url}/admin${path}`, {
    headers: { authorization: `Bearer ${runtimeSecrets.EDGE_ADMIN_TOKEN}` },
  });
  const lines = (await answer.text()).trimEnd().split('\n');
  return lines.map((line): unknown => JSON.parse(line));
}

async function expectUnavailable(answer: Response): Promise<void> {
  expect(answer.status).toBe(503);
  expect(answer.headers.get('retry-after')).toBe('60');
  const text = await answer.text();
  expect(JSON.parse(text)).toMatchObject({ error: { code: 'tenant_unavailable' } });
  expect(text).not.toMatch(/acme|database|sqlite|\//i);
}

describe.each(Object.entries(damages))('a database that %s', (_, { reason, damage }) => {
  test('is unavailable, is left as it is, and works again when its copy is put back', async () => {
    const system = await startRuntimeSystem();
    const path = join(system.folder, 'tenants/acme.db');
    expect((await system.ask('acme')).status).toBe(200);
    expect((await system.ask('other')).status).toBe(200);
    await system.stop();
    copyFileSync(path, join(system.folder, 'copy'));
    damage(path);
    const damaged = existsSync(path) && statSync(path).isFile() ? readFileSync(path) : null;

    await system.startAgain();
    await expectUnavailable(await system.ask('acme'));
    expect((await system.ask('other')).status).toBe(200);
    await expectListed(system, reason);
    await system.stop();
    expect(existsSync(path)).toBe(reason !== 'missing');
    if (damaged !== null) expect(readFileSync(path)).toEqual(damaged);

    rmSync(path, { force: true, recursive: true });
    renameSync(join(system.folder, 'copy'), path);
    await system.startAgain();
    expect((await system.ask('acme')).status).toBe(200);
    expect((await system.audit()).ok).toBe(true);
  });
});

test.each(['is missing', 'is empty', "is another tenant's"])(
  'a database that %s while the edge runs is noticed',
  async (name) => {
    const system = await startRuntimeSystem();
    expect((await system.ask('acme')).status).toBe(200);
    const replacement = join(system.folder, 'replacement');
    const path = join(system.folder, 'tenants/acme.db');
    if (name === 'is missing') rmSync(path);
    else if (name === 'is empty') {
      writeFileSync(replacement, '');
      renameSync(replacement, path);
    } else {
      await system.edge().services.createDatabase('third');
      renameSync(join(system.folder, 'tenants/third.db'), path);
    }
    await expect.poll(async () => (await system.ask('acme')).status).toBe(503);
    await expectUnavailable(await system.ask('acme'));
    expect((await system.ask('other')).status).toBe(200);
  },
);

test('a database from before they had names gets its own when it is opened', async () => {
  const system = await startRuntimeSystem();
  await system.stop();
  const path = join(system.folder, 'tenants/acme.db');
  rmSync(path);
  migrateBefore('0004_identity', path, join(system.folder, 'earlier'));
  await system.startAgain();
  expect(await system.operator().call('GET', '/tenants/acme')).toMatchObject({
    balance: { granted_nano_usd: 0 },
  });
  await system.stop();
  const after = new Database(path, { readonly: true });
  expect(after.prepare('SELECT tenant FROM identity').all()).toEqual([{ tenant: 'acme' }]);
  after.close();
});

/** A database as the program made it before that migration. */
function migrateBefore(tag: string, path: string, earlier: string): void {
  const migrations = join(import.meta.dirname, '../../../db/migrations/tenant');
  cpSync(migrations, earlier, { recursive: true });
  const journalPath = join(earlier, 'meta/_journal.json');
  // drizzle-kit writes it.
  const journal = JSON.parse(readFileSync(journalPath, 'utf8')) as { entries: { tag: string }[] };
  const entries = journal.entries.filter((entry) => entry.tag < tag);
  writeFileSync(journalPath, JSON.stringify({ ...journal, entries }));
  const client = new Database(path);
  migrate(drizzle(client), { migrationsFolder: earlier });
  client.close();
}

describe('a tenant whose creation a crash stopped', () => {
  const row = { id: 'half', name: 'half', status: 'creating', createdAtMs: 1 } as const;

  test('is finished by the next start', async () => {
    const system = await startRuntimeSystem();
    await system.edge().services.directory.createTenant(row);
    writeFileSync(join(system.folder, 'tenants/half.db.new'), 'half of a database');
    await system.stop();
    await system.startAgain();
    expect(await system.operator().call('GET', '/tenants/half')).toMatchObject({
      status: 'active',
      balance: { granted_nano_usd: 0 },
    });
  });

  test('is finished by whoever creates it again, and only once', async () => {
    const system = await startRuntimeSystem();
    const operator = system.operator();
    await system.edge().services.directory.createTenant(row);
    await system.edge().services.createDatabase('half');
    await expect(operator.call('GET', '/tenants/half')).rejects.toThrow(/409 .*create it again/);
    const key = await operator.addTenant('half', dollar);
    expect(key).toMatch(/^sk-sift-half\./);
    await expect(operator.call('POST', '/tenants', { id: 'half' })).rejects.toThrow(/409/);
  });
});
