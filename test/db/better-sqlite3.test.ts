import { is, sql } from 'drizzle-orm';
import { SQLiteTable, getTableConfig } from 'drizzle-orm/sqlite-core';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openDirectoryDb, openTenantDb } from '../../db/drivers/better-sqlite3.ts';
import * as directorySchema from '../../db/schema/directory.ts';
import * as tenantSchema from '../../db/schema/tenant.ts';
import { directoryCases } from './directory-conformance.ts';
import { tenantCases } from './tenant-conformance.ts';

describe('a tenant on better-sqlite3', () => {
  for (const { name, run } of tenantCases) {
    test(name, async () => {
      const { db, close } = openTenantDb(':memory:');
      await run(db).finally(close);
    });
  }
});

describe('the directory on better-sqlite3', () => {
  for (const { name, run } of directoryCases) {
    test(name, async () => {
      const { db, close } = openDirectoryDb(':memory:');
      await run(db).finally(close);
    });
  }
});

test('a file is opened with a write-ahead log, waits for the disk and keeps few pages', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sift-db-'));
  try {
    const path = join(folder, 'tenant.db');
    const first = openTenantDb(path);
    expect(first.db.get(sql`PRAGMA journal_mode`)).toEqual({ journal_mode: 'wal' });
    expect(first.db.get(sql`PRAGMA synchronous`)).toEqual({ synchronous: 2 });
    // KiB of pages in memory: many tenants are open at a time.
    expect(first.db.get(sql`PRAGMA cache_size`)).toEqual({ cache_size: -1024 });
    first.db.run(sql`UPDATE account SET granted_nano_usd = 9`);
    first.close();
    const again = openTenantDb(path);
    expect(again.db.get(sql`SELECT granted_nano_usd AS granted FROM account`)).toEqual({
      granted: 9,
    });
    again.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a file that is no database is refused', () => {
  expect(() => openTenantDb(import.meta.filename)).toThrow(/not a database/);
});

describe.each([
  { name: 'tenant', schema: tenantSchema, open: openTenantDb },
  { name: 'directory', schema: directorySchema, open: openDirectoryDb },
])('the migrations of the $name', ({ name, schema, open }) => {
  const folder = join(import.meta.dirname, '../../db/migrations', name);

  test('make the tables that the schema says', async () => {
    const { db, close } = open(':memory:');
    for (const table of Object.values(schema).filter((value) => is(value, SQLiteTable))) {
      const config = getTableConfig(table);
      const columns = await db.all<{ name: string; notnull: number }>(
        sql`SELECT name, "notnull" FROM pragma_table_info(${config.name})`,
      );
      const made = columns.map((column) => [column.name, column.notnull === 1]);
      expect(made).toEqual(config.columns.map((column) => [column.name, column.notNull]));
      const indexes = await db.all<{ name: string }>(
        sql`SELECT name FROM pragma_index_list(${config.name}) WHERE origin = 'c'`,
      );
      const unique = config.columns.filter((column) => column.isUnique);
      const named = [
        ...config.indexes.map((index) => index.config.name),
        ...unique.map((column) => column.uniqueName ?? ''),
      ];
      expect(indexes.map((index) => index.name).toSorted()).toEqual(named.toSorted());
    }
    close();
  });

  test('are all bundled for a Durable Object', () => {
    const bundled = readFileSync(join(folder, 'migrations.js'), 'utf8');
    const files = readdirSync(folder).filter((file) => file.endsWith('.sql'));
    expect(files.length).toBeGreaterThan(0);
    expect(files.filter((file) => !bundled.includes(`'./${file}'`))).toEqual([]);
  });
});
