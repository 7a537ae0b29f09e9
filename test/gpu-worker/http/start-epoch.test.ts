/** The epoch of a worker's start, over clocks that go back and files that are damaged. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { nextEpoch } from '../../../gpu-worker/http/start-epoch.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const logger = { warn: () => {} };

test('each start of a data folder has a larger epoch than the one before, whatever the clock', async () => {
  const directory = join(temporaryDirectory(), 'worker');
  const epochs: number[] = [];
  for (const nowMs of [1_000_000, 1_000_000, 400_000, 0, 2_000_000]) {
    epochs.push(await nextEpoch({ directory, nowMs, logger }));
  }
  expect(epochs).toEqual([1_000_000, 1_000_001, 1_000_002, 1_000_003, 2_000_000]);
  expect(readFileSync(join(directory, 'epoch'), 'utf8')).toBe('2000000\n');
});

test('a file that holds no epoch counts as none', async () => {
  const directory = temporaryDirectory();
  for (const text of ['', 'x', '-5\n', '9'.repeat(40), '12', '1e99\n']) {
    writeFileSync(join(directory, 'epoch'), text);
    expect(await nextEpoch({ directory, nowMs: 7, logger })).toBe(7);
  }
});

test('a worker starts although its epoch cannot be kept', async () => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'epoch'));
  const warnings: unknown[] = [];
  const warn = (warning: unknown) => void warnings.push(warning);
  expect(await nextEpoch({ directory, nowMs: 7, logger: { warn } })).toBe(7);
  expect(warnings).toHaveLength(1);
});
