/** The weights' cache on a disk without space, where this machine lets a test mount one. */
import { createHash } from 'node:crypto';
import { existsSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PartHasher } from '../../../gpu-worker/weights/cache/part-hasher.ts';
import { openWeightCache } from '../../../gpu-worker/weights/cache/weight-cache.ts';
import type { WeightCache } from '../../../gpu-worker/weights/cache/weight-cache.ts';
import { smallDisk } from '../../support/small-disk.ts';

const disk = smallDisk(2 ** 20);
const hasher = new PartHasher();
const partBytes = 100_000;
const range = (index: number) => ({ start: index * partBytes, end: (index + 1) * partBytes });
const part = (fill: number) => Buffer.alloc(partBytes, fill);
const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const pathOf = (directory: string, fill: number): string => {
  const hash = hashOf(part(fill));
  return join(directory, 'sha256', hash.slice(0, 2), hash);
};

async function put(cache: WeightCache, fill: number): Promise<void> {
  const bytes = part(fill);
  const journal = await cache.journal(['an object']);
  const onKept = () => journal.add(range(fill), hashOf(bytes));
  await cache.put({ sha256: hashOf(bytes), bytes, onKept });
  await cache.settled();
}

const holds = (cache: WeightCache, fill: number) =>
  cache.get(hashOf(part(fill)), Buffer.alloc(partBytes));

function openOn(directory: string, warnings: string[]): Promise<WeightCache> {
  const warn = (line: string): void => void warnings.push(line);
  return openWeightCache({ directory, hasher, bytesMax: 2 ** 30, warn });
}

test.skipIf(disk === null)('a load goes on while the disk is full, and is told once', async () => {
  const directory = join(disk?.path ?? '', 'a');
  const warnings: string[] = [];
  await using cache = await openOn(directory, warnings);
  await put(cache, 1);
  disk?.fill();
  await put(cache, 2);
  await put(cache, 3);
  // A part that is there is noted in the journal, which has no room either.
  await (await cache.journal(['another object'])).add(range(1), hashOf(part(1)));
  await (await cache.journal(['another object'])).addWhole([range(1)]);
  await put(cache, 1);
  expect([await holds(cache, 1), await holds(cache, 2)]).toEqual([true, false]);
  expect(warnings).toEqual([
    expect.stringMatching(/is full: .* free space or set --weights-cache$/),
  ]);
  disk?.empty();
  await put(cache, 2);
  expect(await holds(cache, 2)).toBe(true);
});

test.skipIf(disk === null)('a cache opens on a full disk and reads what it has', async () => {
  const directory = join(disk?.path ?? '', 'b');
  await using before = await openOn(directory, []);
  await put(before, 4);
  disk?.fill();
  const warnings: string[] = [];
  await using cache = await openOn(directory, warnings);
  expect(await holds(cache, 4)).toBe(true);
  await put(cache, 5);
  // And where its directory cannot even be made.
  await using nowhere = await openOn(join(disk?.path ?? '', 'c'), warnings);
  await put(nowhere, 6);
  expect(await holds(nowhere, 6)).toBe(false);
  expect(warnings.length).toBeGreaterThan(0);
  disk?.empty();
  await put(nowhere, 6);
  expect(await holds(nowhere, 6)).toBe(true);
});

test.skipIf(disk === null)('parts that nobody uses make room on a full disk', async () => {
  const directory = join(disk?.path ?? '', 'd');
  const before = await openOn(directory, []);
  await put(before, 7);
  await put(before, 8);
  await before[Symbol.asyncDispose]();
  for (const [fill, ageMs] of [
    [7, 7_200_000],
    [8, 3_600_000],
  ] as const) {
    const used = (Date.now() - ageMs) / 1000;
    utimesSync(pathOf(directory, fill), used, used);
  }
  const warnings: string[] = [];
  await using cache = await openOn(directory, warnings);
  disk?.fill();
  await put(cache, 9);
  expect(await holds(cache, 9)).toBe(true);
  expect(existsSync(pathOf(directory, 7))).toBe(false);
  expect(existsSync(pathOf(directory, 8))).toBe(true);
  expect(warnings).toEqual([]);
  disk?.empty();
});
