import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import {
  BlockManager,
  createBlockTable,
  sha256Hex,
} from '../../../gpu-worker/engine/block-manager.ts';
import type { BlockTable } from '../../../gpu-worker/engine/block-manager.ts';

/** Whole blocks of one repeated token each, and a shorter tail. */
function tokensOf(blocks: readonly number[], tail = 0): Int32Array {
  const whole = blocks.flatMap((token) => Array.from({ length: 64 }, () => token));
  return Int32Array.from([...whole, ...Array.from({ length: tail }, () => 9)]);
}

function openTable(salt = 's', tokensMax = 64 * 64): BlockTable {
  return createBlockTable({ salt, tokensMax });
}

/** Computes the tokens as a sequence of its own, and leaves them in the cache. */
function store(manager: BlockManager, blocks: readonly number[], salt = 's'): number[] {
  const table = openTable(salt);
  const tokens = tokensOf(blocks);
  manager.attach(table, tokens, tokens.length);
  expect(manager.grow(table, tokens.length)).toBe(true);
  manager.commit(table, tokens, tokens.length);
  const used = [...table.blocks.subarray(0, table.count)];
  manager.release(table);
  return used;
}

function cachedBlocks(manager: BlockManager, blocks: readonly number[], salt = 's'): number {
  const tokens = tokensOf(blocks);
  return manager.match(openTable(salt), tokens, tokens.length).blocks;
}

test('a block is shared only once it is full and computed', () => {
  const manager = new BlockManager({ blocks: 4 });
  const table = openTable();
  const tokens = tokensOf([1, 2]);
  manager.grow(table, 128);
  expect(cachedBlocks(manager, [1, 2])).toBe(0);
  manager.commit(table, tokens, 63);
  expect(cachedBlocks(manager, [1, 2])).toBe(0);
  manager.commit(table, tokens, 127);
  expect(cachedBlocks(manager, [1, 2])).toBe(1);
  manager.commit(table, tokens, 128);
  expect(cachedBlocks(manager, [1, 2])).toBe(2);
});

test('a cached prefix is taken up to whole blocks of the limit, and counted by reference', () => {
  const manager = new BlockManager({ blocks: 4 });
  const blocks = store(manager, [1, 2, 3]);
  const tokens = tokensOf([1, 2, 3]);
  const [one, two] = [openTable(), openTable()];
  expect(manager.attach(one, tokens, 191)).toBe(128);
  expect(manager.attach(two, tokens, 64)).toBe(64);
  expect([...one.blocks.subarray(0, one.count)]).toEqual(blocks.slice(0, 2));
  expect(manager.counts()).toEqual({ total: 4, free: 1, held: 2, idle: 1 });
  manager.release(one);
  expect(manager.counts()).toEqual({ total: 4, free: 1, held: 1, idle: 2 });
  manager.release(two);
  expect(manager.counts()).toEqual({ total: 4, free: 1, held: 0, idle: 3 });
});

test('equal tokens behind another parent, or under another salt, are another block', () => {
  const manager = new BlockManager({ blocks: 8 });
  store(manager, [1, 2]);
  expect(cachedBlocks(manager, [2, 2])).toBe(0);
  expect(cachedBlocks(manager, [1, 1])).toBe(1);
  expect(cachedBlocks(manager, [1, 2], 't')).toBe(0);
  expect(cachedBlocks(manager, [1, 2], '')).toBe(0);
});

test('growing takes all the blocks it needs or none', () => {
  const manager = new BlockManager({ blocks: 3 });
  const [one, two] = [openTable(), openTable()];
  expect(manager.grow(one, 65)).toBe(true);
  expect(manager.grow(two, 65)).toBe(false);
  expect(two.count).toBe(0);
  expect(manager.counts()).toMatchObject({ free: 1, held: 2 });
  expect(manager.grow(two, 64)).toBe(true);
});

test('the least recently used chain is evicted first, its leaf before its root', () => {
  const manager = new BlockManager({ blocks: 4 });
  store(manager, [1, 2]);
  store(manager, [3, 4]);
  store(manager, [1, 2]);
  const table = openTable();
  const seen: [number, number][] = [];
  for (let tokens = 64; tokens <= 256; tokens += 64) {
    manager.grow(table, tokens);
    seen.push([cachedBlocks(manager, [1, 2]), cachedBlocks(manager, [3, 4])]);
  }
  expect(seen).toEqual([
    [2, 1],
    [2, 0],
    [1, 0],
    [0, 0],
  ]);
  expect(manager.evicted).toBe(4);
});

test('of two equal blocks computed at the same time the first stays and the second is freed', () => {
  const manager = new BlockManager({ blocks: 6 });
  const tokens = tokensOf([1, 2]);
  const [one, two] = [openTable(), openTable()];
  manager.grow(one, 128);
  manager.grow(two, 128);
  manager.commit(one, tokens, 128);
  expect(manager.counts()).toMatchObject({ free: 2, held: 4 });
  manager.commit(two, tokens, 128);
  expect([...two.blocks.subarray(0, 2)]).toEqual([...one.blocks.subarray(0, 2)]);
  expect(manager.counts()).toMatchObject({ free: 4, held: 2 });
  manager.release(one);
  manager.release(two);
  expect(manager.counts()).toEqual({ total: 6, free: 4, held: 0, idle: 2 });
});

const oneKeyForAll = (): string => '0'.repeat(64);

/** All blocks whose tokens are 5 or 6 collide, whatever their parents. */
const oneKeyForThirds = (bytes: Uint8Array): string =>
  [5, 6].includes(bytes[64] ?? -1) ? 'f'.repeat(64) : sha256Hex(bytes);

test('chains whose hashes collide are never mixed', () => {
  const manager = new BlockManager({ blocks: 8, hash: oneKeyForAll });
  store(manager, [1]);
  expect(cachedBlocks(manager, [1])).toBe(1);
  expect(cachedBlocks(manager, [2])).toBe(0);
  expect(cachedBlocks(manager, [1], 't')).toBe(0);
  // The second block has the key of the first: it finds that one, whose parent and tokens differ.
  expect(cachedBlocks(manager, [1, 2])).toBe(1);
  expect(cachedBlocks(manager, [1, 1])).toBe(1);
  store(manager, [1, 1, 2]);
  expect(manager.counts()).toEqual({ total: 8, free: 7, held: 0, idle: 1 });
});

test('a collision behind an equal prefix stops the sharing there, not before', () => {
  const manager = new BlockManager({ blocks: 12, hash: oneKeyForThirds });
  store(manager, [1, 2, 5, 3]);
  store(manager, [1, 2, 6, 3]);
  expect(cachedBlocks(manager, [1, 2, 5, 3])).toBe(4);
  expect(cachedBlocks(manager, [1, 2, 6, 3])).toBe(2);
  store(manager, [4, 5]);
  expect(cachedBlocks(manager, [4, 5])).toBe(1);
});

test('growing past the table, or attaching to a used one, is a bug', () => {
  const manager = new BlockManager({ blocks: 4 });
  const table = openTable('s', 64);
  expect(() => manager.grow(table, 65)).toThrow('keeps within the length');
  manager.grow(table, 64);
  expect(() => manager.attach(table, tokensOf([1]), 64)).toThrow('empty table');
  expect(() => new BlockManager({ blocks: 0 })).toThrow('at least one block');
});

/** The same rules with whole prefixes in place of keys, and arrays in place of links. */
class NaiveBlocks {
  readonly total: number;
  private: number[] = [];
  /** Whole prefix of every cached block -> how many hold it. */
  readonly cached = new Map<string, number>();
  /** Prefixes that nobody holds, least recently used first. */
  idle: string[] = [];

  constructor(total: number) {
    this.total = total;
  }

  get held(): number {
    const shared = [...this.cached.values()].filter((holders) => holders > 0).length;
    return shared + this.private.reduce((sum, blocks) => sum + blocks, 0);
  }

  get free(): number {
    return this.total - this.held - this.idle.length;
  }

  match(prefixes: readonly string[]): number {
    const miss = prefixes.findIndex((prefix) => !this.cached.has(prefix));
    return miss < 0 ? prefixes.length : miss;
  }

  hold(prefix: string): void {
    this.cached.set(prefix, (this.cached.get(prefix) ?? 0) + 1);
    this.idle = this.idle.filter((each) => each !== prefix);
  }

  drop(prefix: string): void {
    const holders = (this.cached.get(prefix) ?? 0) - 1;
    this.cached.set(prefix, holders);
    if (holders === 0) this.idle.push(prefix);
  }

  evict(): void {
    const prefix = at(this.idle.splice(0, 1), 0);
    this.cached.delete(prefix);
    const orphans = [...this.cached.keys()].filter((each) => each.startsWith(prefix));
    assert.deepEqual(orphans, []);
  }
}

interface Live {
  readonly table: BlockTable;
  readonly tokens: Int32Array;
  readonly prefixes: readonly string[];
  computed: number;
}

test('any history of sequences leaves the blocks as the naive rules say', () => {
  const operation = fc.oneof(
    fc.record({
      kind: fc.constant('open' as const),
      salt: fc.constantFrom('s', 't'),
      blocks: fc.array(fc.integer({ min: 1, max: 2 }), { maxLength: 5 }),
      tail: fc.integer({ min: 1, max: 63 }),
    }),
    fc.record({
      kind: fc.constant('compute' as const),
      which: fc.nat(),
      count: fc.integer({ min: 1, max: 150 }),
    }),
    fc.record({ kind: fc.constant('release' as const), which: fc.nat() }),
  );
  const history = fc.array(operation, { maxLength: 60 });
  const property = fc.property(fc.integer({ min: 4, max: 12 }), history, (total, operations) => {
    const manager = new BlockManager({ blocks: total });
    const naive = new NaiveBlocks(total);
    const live: Live[] = [];
    const check = (): void => {
      naive.private = live.map(({ table }) => table.count - table.cached);
      const { free, held, idle } = manager.counts();
      expect({ free, held, idle }).toEqual({
        free: naive.free,
        held: naive.held,
        idle: naive.idle.length,
      });
    };
    for (const each of operations) {
      if (each.kind === 'open') {
        const tokens = tokensOf(each.blocks, each.tail);
        const prefixes = each.blocks.map(
          (_, index) => `${each.salt}|${each.blocks.slice(0, index + 1).join()},`,
        );
        const table = openTable(each.salt, tokens.length);
        const expected = naive.match(prefixes);
        const idle = prefixes.slice(0, expected).filter((prefix) => naive.idle.includes(prefix));
        expect(manager.match(table, tokens, tokens.length - 1)).toEqual({
          blocks: expected,
          idle: idle.length,
        });
        expect(manager.attach(table, tokens, tokens.length - 1)).toBe(expected * 64);
        prefixes.slice(0, expected).forEach((prefix) => naive.hold(prefix));
        live.push({ table, tokens, prefixes, computed: expected * 64 });
      } else if (live.length === 0) {
        continue;
      } else if (each.kind === 'compute') {
        const sequence = at(live, each.which % live.length);
        const { table, tokens, prefixes } = sequence;
        const target = Math.min(tokens.length, sequence.computed + each.count);
        const needed = Math.ceil(target / 64) - table.count;
        const fits = needed <= naive.free + naive.idle.length;
        expect(manager.grow(table, target)).toBe(fits);
        if (!fits) continue;
        while (naive.free < needed) naive.evict();
        sequence.computed = target;
        const before = table.cached;
        manager.commit(table, tokens, target);
        prefixes.slice(before, Math.floor(target / 64)).forEach((prefix) => naive.hold(prefix));
      } else {
        const { table, prefixes } = at(live.splice(each.which % live.length, 1), 0);
        prefixes
          .slice(0, table.cached)
          .toReversed()
          .forEach((prefix) => naive.drop(prefix));
        manager.release(table);
      }
      check();
    }
    live.splice(0).forEach(({ table }) => manager.release(table));
    expect(manager.counts().held).toBe(0);
  });
  fc.assert(property, { numRuns: 300 });
});
