import { defineConfig } from 'vitest/config';

const onNode = {
  testTimeout: 120_000,
  hookTimeout: 120_000,
  // What a test waits for comes later on a slow machine.
  expect: { poll: { timeout: 30_000 } },
};

/** Tests of the running edge that are run once more on an edge of two threads. */
const onTwoThreads = [
  'test/edge/node/{full-disk,locked,node,power-cut,watch-over}.test.ts',
  'test/edge/runtimes/node-end-to-end.test.ts',
];

/** `*.test.ts` run on Node, `*.workerd.ts` inside workerd. */
export default defineConfig({
  test: {
    // A cold workerd run fails with the module cache on.
    fsModuleCache: false,
    maxWorkers: 2,
    projects: [
      {
        test: { ...onNode, name: 'node', include: ['test/**/*.test.ts'] },
      },
      {
        test: {
          ...onNode,
          name: 'node-threads',
          include: onTwoThreads,
          env: { EDGE_THREADS: '2' },
        },
      },
      './vitest.workerd.config.ts',
    ],
  },
});
