/** The drivers' conformance suite inside workerd: a Durable Object's SQLite, and D1. */
import { applyD1Migrations, env, runInDurableObject } from 'cloudflare:test';
import { describe, test } from 'vitest';
import { openDirectoryDb } from '../../db/drivers/d1.ts';
import { openTenantDb } from '../../db/drivers/durable-sqlite.ts';
import { directoryCases } from './directory-conformance.ts';
import { tenantCases } from './tenant-conformance.ts';

describe('a tenant on the SQLite of a Durable Object', () => {
  for (const { name, run } of tenantCases) {
    test(name, async () => {
      const stub = env.TENANT.get(env.TENANT.newUniqueId());
      await runInDurableObject(stub, async (_, state) => run(await openTenantDb(state.storage)));
    });
  }
});

describe('the directory on D1', () => {
  for (const { name, run } of directoryCases) {
    test(name, async () => {
      await applyD1Migrations(env.DIRECTORY, env.DIRECTORY_MIGRATIONS);
      for (const table of ['model', 'price', 'tenant', 'webhook_event']) {
        await env.DIRECTORY.prepare(`DELETE FROM ${table}`).run();
      }
      await run(openDirectoryDb(env.DIRECTORY));
    });
  }
});
