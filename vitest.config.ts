import { defineConfig } from 'vitest/config';

/** `*.test.ts` run on Node, `*.workerd.ts` inside workerd. */
export default defineConfig({
  test: {
    // A cold workerd run fails with the module cache on.
    fsModuleCache: false,
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: 'node',
          include: ['test/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          // What a test waits for comes later on a slow machine.
          expect: { poll: { timeout: 30_000 } },
        },
      },
      './vitest.workerd.config.ts',
    ],
  },
});
