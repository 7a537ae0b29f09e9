/** Tests that run inside workerd: over a Durable Object's own SQLite, and over D1. */
import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-plugin';
import { defineConfig } from 'vitest/config';

const directoryMigrations = await readD1Migrations('db/migrations/directory');

export default defineConfig({
  plugins: [
    cloudflareTest({
      main: './test/support/edge/workerd-objects.ts',
      wrangler: { configPath: './wrangler.toml' },
      miniflare: {
        bindings: {
          DIRECTORY_MIGRATIONS: directoryMigrations,
          EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-tests',
          EDGE_CACHE_SECRET: 'cache-secret-of-the-tests',
          WORKER_TOKEN: 'worker-token-of-the-tests',
          EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
        },
      },
    }),
  ],
  test: {
    name: 'workerd',
    testTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
    fsModuleCache: false,
    include: ['test/**/*.workerd.ts'],
  },
});
