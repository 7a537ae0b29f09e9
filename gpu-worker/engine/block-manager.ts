/**
 * Keeps who holds which block of the paged caches, and which full blocks are kept as prefixes.
 *
 * A block is free, held (by one or more sequences) or idle (held by nobody, kept as a cached
 * prefix). A full and computed block is entered under a chained key, SHA-256(parent's key | the
 * block's 64 tokens), rooted in the request's cache salt. A key only finds a candidate: the parent
 * block and the tokens are compared as well, so two chains whose hashes collide are never mixed.
 *
 * Idle blocks form one queue in order of release, tail of the chain first. Whoever holds a block
 * holds its whole chain, so a child always stands before its parent there: taking from the front
 * is least recently used, and leaf first, at O(1).
 */
import { strict as assert } from 'node:assert';
import { hash } from 'node:crypto';
import { at, missing } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';

/** Key of a block: `keyCharacters` ASCII characters. */
export type HashFunction = (bytes: Uint8Array) => string;

export const sha256Hex: HashFunction = (bytes) => hash('sha256', bytes, 'hex');

/** Blocks that hold `tokens` tokens. */
export function blocksFor(tokens: number): number {
  return Math.ceil(tokens / blockTokens);
}

/** The blocks of one sequence, in order of position. Made by `createBlockTable`. */
export interface BlockTable {
  readonly salt: string;
  /** [capacity] physical block numbers, of which the first `count` are held. */
  readonly blocks: Int32Array;
  count: number;
  /** Leading blocks that are entered in the prefix cache. */
  cached: number;
  /** False once a key collided with another chain's: the following blocks stay private. */
  shareable: boolean;
  /** Chained keys of the leading blocks, as far as they were asked for. */
  readonly keys: string[];
}

export function createBlockTable(options: { salt: string; tokensMax: number }): BlockTable {
  const blocks = new Int32Array(blocksFor(options.tokensMax));
  return { salt: options.salt, blocks, count: 0, cached: 0, shareable: true, keys: [] };
}

export interface BlockCounts {
  readonly total: number;
  readonly free: number;
  readonly held: number;
  readonly idle: number;
}

const keyCharacters = 64;
const none = -1;

export class BlockManager {
  readonly total: number;
  evicted = 0;

  readonly #hash: HashFunction;
  /** Stack of free blocks. */
  readonly #free: Int32Array;
  #freeCount: number;
  #heldCount = 0;
  #idleCount = 0;
  /** [total] how many sequences hold the block. */
  readonly #references: Int32Array;
  /** [total] of a cached block: its key, its parent block, its salt if it is a root, its tokens. */
  readonly #keys: (string | null)[];
  readonly #parents: Int32Array;
  readonly #salts: (string | null)[];
  readonly #tokens: Int32Array;
  /** [total] cached blocks whose parent this is. */
  readonly #children: Int32Array;
  readonly #byKey = new Map<string, number>();
  /** The queue of idle blocks, a ring of links; entry `total` is its head. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #hashInput = Buffer.alloc(keyCharacters + blockTokens * 4);

  constructor(options: { blocks: number; hash?: HashFunction }) {
    const { blocks } = options;
    assert(Number.isInteger(blocks) && blocks > 0, 'a cache has at least one block');
    this.total = blocks;
    this.#hash = options.hash ?? sha256Hex;
    this.#free = Int32Array.from({ length: blocks }, (_, index) => blocks - 1 - index);
    this.#freeCount = blocks;
    this.#references = new Int32Array(blocks);
    this.#keys = Array.from<string | null>({ length: blocks }).fill(null);
    this.#parents = new Int32Array(blocks).fill(none);
    this.#salts = Array.from<string | null>({ length: blocks }).fill(null);
    this.#tokens = new Int32Array(blocks * blockTokens);
    this.#children = new Int32Array(blocks);
    this.#next = new Int32Array(blocks + 1).fill(none);
    this.#previous = new Int32Array(blocks + 1).fill(none);
    this.#next[blocks] = blocks;
    this.#previous[blocks] = blocks;
  }

  /** Blocks that `grow` can still give: the free ones, and the idle ones by eviction. */
  get available(): number {
    return this.#freeCount + this.#idleCount;
  }

  counts(): BlockCounts {
    const [total, freeCount, heldCount, idleCount] = [
      this.total,
      this.#freeCount,
      this.#heldCount,
      this.#idleCount,
    ];
    assert(freeCount + heldCount + idleCount === total, 'every block is free, held or idle');
    return { total, free: freeCount, held: heldCount, idle: idleCount };
  }

  /**
   * Counts the leading blocks of `tokens` that are cached, within its first `tokensMax` tokens, and
   * those of them that are idle (taking those makes them unavailable). Changes nothing.
   */
  match(
    table: BlockTable,
    tokens: Int32Array,
    tokensMax: number,
  ): { blocks: number; idle: number } {
    const limit = Math.floor(tokensMax / blockTokens);
    let parent = none;
    let idle = 0;
    for (let index = 0; index < limit; index++) {
      const block = this.#find(table, tokens, index, parent);
      if (block === none) return { blocks: index, idle };
      if (this.#references[block] === 0) idle++;
      parent = block;
    }
    return { blocks: limit, idle };
  }

  /** Takes the cached blocks that `match` counts into an empty table; returns their tokens. */
  attach(table: BlockTable, tokens: Int32Array, tokensMax: number): number {
    assert(table.count === 0, 'a prefix is attached to an empty table');
    const limit = Math.floor(tokensMax / blockTokens);
    let parent = none;
    while (table.count < limit) {
      const block = this.#find(table, tokens, table.count, parent);
      if (block === none) break;
      this.#hold(block);
      table.blocks[table.count++] = block;
      parent = block;
    }
    table.cached = table.count;
    return table.count * blockTokens;
  }

  /** Makes room in the table for `tokensTotal` tokens; takes all the blocks it needs, or none. */
  grow(table: BlockTable, tokensTotal: number): boolean {
    const target = blocksFor(tokensTotal);
    assert(
      target <= table.blocks.length,
      'a sequence keeps within the length it was admitted with',
    );
    if (target - table.count > this.available) return false;
    while (table.count < target) table.blocks[table.count++] = this.#take();
    return true;
  }

  /**
   * Enters the blocks that are full within the first `computed` tokens into the prefix cache. Where
   * an equal block is there already (two sequences computed it at the same time), the table goes
   * over to that one and its own becomes free. To be called between steps.
   */
  commit(table: BlockTable, tokens: Int32Array, computed: number): void {
    while (table.shareable && (table.cached + 1) * blockTokens <= computed) {
      const index = table.cached;
      const own = at(table.blocks, index);
      const parent = index === 0 ? none : at(table.blocks, index - 1);
      const key = this.#keyOf(table, tokens, index);
      if (!this.#byKey.has(key)) {
        this.#enter(own, key, parent, table, tokens);
      } else {
        const known = this.#find(table, tokens, index, parent);
        if (known === none) {
          table.shareable = false;
          return;
        }
        this.#hold(known);
        table.blocks[index] = known;
        this.#drop(own);
      }
      table.cached++;
    }
  }

  /** Gives up the table's blocks; those in the prefix cache stay there until they are evicted. */
  release(table: BlockTable): void {
    for (let index = table.count - 1; index >= 0; index--) this.#drop(at(table.blocks, index));
    table.count = 0;
    table.cached = 0;
    table.shareable = true;
  }

  /** The block cached for `tokens[index * 64 ...]` behind `parent`, or none. */
  #find(table: BlockTable, tokens: Int32Array, index: number, parent: number): number {
    const block = this.#byKey.get(this.#keyOf(table, tokens, index));
    if (block === undefined || this.#parents[block] !== parent) return none;
    if (parent === none && this.#salts[block] !== table.salt) return none;
    for (let offset = 0; offset < blockTokens; offset++) {
      if (this.#tokens[block * blockTokens + offset] !== tokens[index * blockTokens + offset])
        return none;
    }
    return block;
  }

  #keyOf(table: BlockTable, tokens: Int32Array, index: number): string {
    for (let next = table.keys.length; next <= index; next++) {
      const parentKey =
        next === 0
          ? this.#hash(Buffer.from(`sift cache root\0${table.salt}`))
          : at(table.keys, next - 1);
      assert(parentKey.length === keyCharacters, 'keys have one length');
      this.#hashInput.write(parentKey, 0, 'latin1');
      for (let offset = 0; offset < blockTokens; offset++) {
        const token = tokens[next * blockTokens + offset] ?? missing();
        this.#hashInput.writeInt32LE(token, keyCharacters + offset * 4);
      }
      table.keys.push(this.#hash(this.#hashInput));
    }
    return at(table.keys, index);
  }

  /** A block for new tokens: a free one, or else the idle one that is least recently used. */
  #take(): number {
    let block: number;
    if (this.#freeCount > 0) {
      block = at(this.#free, --this.#freeCount);
    } else {
      block = at(this.#next, this.total);
      assert(block !== this.total, 'blocks are taken only while some are available');
      this.#unlink(block);
      this.#forget(block);
      this.evicted++;
    }
    assert(this.#references[block] === 0 && this.#keys[block] === null, 'a new block is nobody’s');
    this.#references[block] = 1;
    this.#heldCount++;
    return block;
  }

  #hold(block: number): void {
    const holders = at(this.#references, block);
    this.#references[block] = holders + 1;
    if (holders > 0) return;
    this.#unlink(block);
    this.#heldCount++;
  }

  #drop(block: number): void {
    const holders = at(this.#references, block);
    assert(holders > 0, 'only a held block can be dropped');
    this.#references[block] = holders - 1;
    if (holders > 1) return;
    this.#heldCount--;
    if (this.#keys[block] === null) this.#free[this.#freeCount++] = block;
    else this.#linkLast(block);
  }

  #enter(block: number, key: string, parent: number, table: BlockTable, tokens: Int32Array): void {
    const start = table.cached * blockTokens;
    this.#byKey.set(key, block);
    this.#keys[block] = key;
    this.#parents[block] = parent;
    this.#salts[block] = parent === none ? table.salt : null;
    this.#tokens.set(tokens.subarray(start, start + blockTokens), block * blockTokens);
    if (parent !== none) this.#children[parent] = at(this.#children, parent) + 1;
  }

  #forget(block: number): void {
    const key = at(this.#keys, block);
    const parent = at(this.#parents, block);
    assert(key !== null, 'an idle block is a cached one');
    assert(this.#children[block] === 0, 'a parent is never evicted before its children');
    this.#byKey.delete(key);
    if (parent !== none) this.#children[parent] = at(this.#children, parent) - 1;
    this.#keys[block] = null;
    this.#salts[block] = null;
    this.#parents[block] = none;
  }

  #linkLast(block: number): void {
    const last = at(this.#previous, this.total);
    this.#next[last] = block;
    this.#previous[block] = last;
    this.#next[block] = this.total;
    this.#previous[this.total] = block;
    this.#idleCount++;
  }

  #unlink(block: number): void {
    const [previous, next] = [at(this.#previous, block), at(this.#next, block)];
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#idleCount--;
  }
}
