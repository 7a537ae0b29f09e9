import { defineConfig } from 'drizzle-kit';

/**
 * Two databases: `SIFT_SCHEMA=directory drizzle-kit generate` or, without it, the tenant's. The
 * driver only decides that a `migrations.js` is written, which Durable Objects bundle.
 */
const schema = process.env['SIFT_SCHEMA'] === 'directory' ? 'directory' : 'tenant';

export default defineConfig({
  dialect: 'sqlite',
  driver: 'durable-sqlite',
  schema:
    schema === 'tenant'
      ? ['./db/schema/tenant.ts', './db/schema/account.ts']
      : './db/schema/directory.ts',
  out: `./db/migrations/${schema}`,
});
