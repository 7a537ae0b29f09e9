import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { at } from '../../../../gpu-worker/at.ts';
import { PartHasher } from '../../../../gpu-worker/weights/cache/part-hasher.ts';
import { CheckpointError } from '../../../../gpu-worker/weights/source.ts';
import { openWeightCache } from '../../../../gpu-worker/weights/cache/weight-cache.ts';
import type { WeightCache } from '../../../../gpu-worker/weights/cache/weight-cache.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const folder = temporaryDirectory();
const hasher = new PartHasher();
const warn = (): void => {};
const newDirectory = () => mkdtempSync(join(folder, 'cache-'));

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const part = (fill: number) => Buffer.alloc(100, fill);

async function putAll(cache: WeightCache, ...fills: number[]): Promise<void> {
  for (const fill of fills) {
    const bytes = part(fill);
    await cache.put({ sha256: hashOf(bytes), bytes, async onKept() {} });
  }
  await cache.settled();
}

async function holds(cache: WeightCache, fill: number): Promise<boolean> {
  const into = Buffer.alloc(100);
  const found = await cache.get(hashOf(part(fill)), into);
  if (found) expect(into).toEqual(part(fill));
  return found;
}

/** Lists which of these the cache holds. */
async function held(cache: WeightCache, fills: number[]): Promise<number[]> {
  const found = await Promise.all(fills.map((fill) => holds(cache, fill)));
  return fills.filter((_, i) => found[i]);
}

/** Sets the parts' last use to `ageMs` ago. */
function setAge(directory: string, fill: number, ageMs: number): void {
  const hash = hashOf(part(fill));
  const used = (Date.now() - ageMs) / 1000;
  utimesSync(join(directory, 'sha256', hash.slice(0, 2), hash), used, used);
}

describe('the cache of weights', () => {
  test('gives back what was put, to whoever opens the directory', async () => {
    const directory = newDirectory();
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 1000 });
    await putAll(cache, 1, 2);
    await using other = await openWeightCache({ directory, hasher, warn, bytesMax: 1000 });
    expect(await holds(other, 1)).toBe(true);
    expect(await holds(other, 2)).toBe(true);
    expect(await holds(other, 3)).toBe(false);
  });

  test('never gives bytes that do not have the hash, and forgets them', async () => {
    const directory = newDirectory();
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 1000 });
    await putAll(cache, 1);
    const hash = hashOf(part(1));
    writeFileSync(join(directory, 'sha256', hash.slice(0, 2), hash), part(2));
    expect(await holds(cache, 1)).toBe(false);
    await putAll(cache, 1);
    expect(await holds(cache, 1)).toBe(true);
    writeFileSync(join(directory, 'sha256', hash.slice(0, 2), hash), 'short');
    expect(await holds(cache, 1)).toBe(false);
  });

  test('evicts what was used least recently, by bytes', async () => {
    const directory = newDirectory();
    {
      await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
      await putAll(cache, 1, 2, 3);
    }
    for (const [fill, ageMs] of [
      [1, 50_000],
      [2, 90_000],
      [3, 70_000],
    ] as const)
      setAge(directory, fill, ageMs);
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    await putAll(cache, 4, 5);
    expect(await held(cache, [1, 2, 3, 4, 5])).toEqual([1, 4, 5]);
  });

  test('evicts nothing that a live user has touched, and keeps within its bytes', async () => {
    const directory = newDirectory();
    await using first = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    await putAll(first, 1, 2);
    await using second = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    await putAll(second, 3, 4, 5);
    expect(await held(second, [1, 2, 3, 4, 5])).toEqual([1, 2, 3]);
  });

  test('counts a part once that is on the disk and whose keeper has not heard of it', async () => {
    const directory = newDirectory();
    {
      await using before = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
      await putAll(before, 1, 2, 3);
    }
    for (const fill of [1, 2, 3]) setAge(directory, fill, 90_000);
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    const renamed = Promise.withResolvers<void>();
    const heard = Promise.withResolvers<void>();
    await cache.put({
      sha256: hashOf(part(4)),
      bytes: part(4),
      onKept() {
        renamed.resolve();
        return heard.promise;
      },
    });
    await renamed.promise;
    for (const fill of [5, 6]) {
      const kept = Promise.withResolvers<void>();
      const onKept = async () => kept.resolve();
      await cache.put({ sha256: hashOf(part(fill)), bytes: part(fill), onKept });
      if (fill === 5) await kept.promise;
    }
    heard.resolve();
    await cache.settled();
    expect(await held(cache, [1, 2, 3, 4, 5, 6])).toEqual([4, 5, 6]);
  });

  test('evicts what only dead users have touched', async () => {
    const directory = newDirectory();
    const dead = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    await putAll(dead, 1, 2, 3);
    for (const fill of [1, 2, 3]) setAge(directory, fill, 90_000);
    // kill -9 leaves this: the file stays and nobody touches it.
    for (const name of readdirSync(join(directory, 'users'))) {
      const longAgo = Date.now() / 1000 - 120;
      utimesSync(join(directory, 'users', name), longAgo, longAgo);
    }
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 300 });
    await putAll(cache, 4, 5, 6);
    expect(await held(cache, [1, 4, 5, 6])).toEqual([4, 5, 6]);
    expect(readdirSync(join(directory, 'users'))).toHaveLength(1);
    await dead[Symbol.asyncDispose]();
  });

  test('holds its bound when many parts are put at once', async () => {
    const directory = newDirectory();
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 500 });
    const fills = Array.from({ length: 20 }, (_, fill) => fill);
    await Promise.all(fills.map((fill) => putAll(cache, fill)));
    const count = (await held(cache, fills)).length;
    expect(count).toBeGreaterThan(0);
    expect(count).toBeLessThanOrEqual(5);
  });

  test('sweeps what killed writers left, and leaves what others are writing', async () => {
    const directory = newDirectory();
    await (
      await openWeightCache({ directory, hasher, warn, bytesMax: 500 })
    )[Symbol.asyncDispose]();
    for (const [name, ageMs] of [
      ['old', 120_000],
      ['new', 0],
    ] as const) {
      const path = join(directory, 'tmp', name);
      writeFileSync(path, 'torn');
      const touched = (Date.now() - ageMs) / 1000;
      utimesSync(path, touched, touched);
    }
    await (
      await openWeightCache({ directory, hasher, warn, bytesMax: 500 })
    )[Symbol.asyncDispose]();
    expect(readdirSync(join(directory, 'tmp'))).toEqual(['new']);
  });

  test('is refused where the directory is a file', async () => {
    const directory = join(newDirectory(), 'file');
    writeFileSync(directory, '');
    await expect(openWeightCache({ directory, hasher, warn, bytesMax: 1 })).rejects.toThrow(
      CheckpointError,
    );
  });
});

describe('a journal of parts', () => {
  const pin = ['endpoint', 'bucket/key', '"etag"', '100'];
  const [a, b] = [
    { start: 0, end: 10 },
    { start: 10, end: 30 },
  ];

  test('is read back by the next load, whole lines only', async () => {
    const directory = newDirectory();
    await using cache = await openWeightCache({ directory, hasher, warn, bytesMax: 500 });
    const journal = await cache.journal(pin);
    await journal.add(a, hashOf(part(1)));
    const name = at(readdirSync(join(directory, 'journal')), 0);
    // Torn by a kill -9, with the next writer's line after it.
    writeFileSync(join(directory, 'journal', name), '\n{"start":30,"end":4', { flag: 'a' });
    await journal.add(b, hashOf(part(2)));
    const again = await cache.journal(pin);
    expect([again.sha256(a), again.sha256(b)]).toEqual([hashOf(part(1)), hashOf(part(2))]);
    expect(again.sha256({ start: 30, end: 40 })).toBe(null);
    expect([again.endOf(0), again.endOf(10), again.endOf(30)]).toEqual([10, 30, null]);
  });

  test('vouches for the whole only with the parts that were checked', async () => {
    await using cache = await openWeightCache({
      directory: newDirectory(),
      hasher,
      warn,
      bytesMax: 500,
    });
    const journal = await cache.journal(pin);
    await journal.add(a, hashOf(part(1)));
    await journal.add(b, hashOf(part(2)));
    expect(journal.isWhole([a, b])).toBe(false);
    await journal.addWhole([a, b]);
    expect((await cache.journal(pin)).isWhole([a, b])).toBe(true);
    await journal.add(b, hashOf(part(3)));
    expect((await cache.journal(pin)).isWhole([a, b])).toBe(false);
    await journal.forget();
    expect((await cache.journal(pin)).sha256(a)).toBe(null);
  });

  test('belongs to one version of one object', async () => {
    await using cache = await openWeightCache({
      directory: newDirectory(),
      hasher,
      warn,
      bytesMax: 500,
    });
    await (await cache.journal(pin)).add(a, hashOf(part(1)));
    expect((await cache.journal([...pin.slice(0, 3), '101'])).sha256(a)).toBe(null);
  });
});
