/**
 * Byte-pair encoding of pre-tokens: of all neighbours the pair of the lowest rank is merged first,
 * of equal ones the leftmost, until no pair has a rank. The library that pre-tokenises could merge
 * too, but takes 6 microseconds a byte where a text has no words (100 KB of ideographs: 1.2 s), on
 * the thread that serves everybody. Here symbols are integers, and that text takes a tenth of it.
 */
import { missing } from '../at.ts';
import { byteAlphabet } from './byte-alphabet.ts';
import { TokenizerError } from './tokenizer-files.ts';

/** Words of this many characters at most are remembered, up to `cacheWordsMax` of them. */
const cachedLengthMax = 48;
const cacheWordsMax = 16_384;

/** Up to here looking at all pairs again after each merge is faster than a heap. */
const shortLengthMax = 24;

/** Merges between two calls of `pause`. */
const mergesPerPause = 4096;

export interface Bpe {
  /** Appends the ids of a pre-token, written in the byte alphabet, to `out`. */
  encode(word: string, out: number[]): void;
}

/** Throws a TokenizerError if a merge names a token that the vocabulary lacks. */
export function createBpe(
  model: {
    vocab: Readonly<Record<string, number>>;
    merges: readonly unknown[];
  },
  /** Called often while a long pre-token is encoded. */
  pause: () => void = () => {},
): Bpe {
  const vocab = new Map(Object.entries(model.vocab));
  const merges = readMerges(model.merges, vocab);
  const symbolOf = readSymbols(vocab);
  const cache = new Map<string, readonly number[]>();

  return {
    encode(word, out) {
      const known = cache.get(word);
      if (known !== undefined) {
        for (const id of known) out.push(id);
        return;
      }
      const start = out.length;
      const symbols = Int32Array.from(
        word,
        (character) => symbolOf[character.charCodeAt(0)] ?? missing(),
      );
      if (symbols.length <= shortLengthMax) mergeShort(symbols, merges, out);
      else mergeLong(symbols, merges, { out, pause });
      if (word.length > cachedLengthMax) return;
      if (cache.size === cacheWordsMax) cache.clear();
      cache.set(word, out.slice(start));
    },
  };
}

interface Merges {
  /** The rank of a pair, or -1. Its place in tokenizer.json; lower ranks merge first. */
  rank(left: number, right: number): number;
  /** The id that the pair of each rank becomes. */
  readonly merged: Int32Array;
}

/** Pairs in an open-addressed hash table of integers, half full at most. */
function readMerges(entries: readonly unknown[], vocab: ReadonlyMap<string, number>): Merges {
  const capacity = 2 ** Math.ceil(Math.log2(Math.max(2, entries.length * 2)));
  const lefts = new Int32Array(capacity).fill(-1);
  const rights = new Int32Array(capacity);
  const ranks = new Int32Array(capacity);
  const merged = new Int32Array(entries.length);
  const place = (left: number, right: number): number => {
    let at = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 0;
    at = (at ^ (at >>> 15)) & (capacity - 1);
    while (lefts[at] !== -1 && (lefts[at] !== left || rights[at] !== right)) {
      at = (at + 1) & (capacity - 1);
    }
    return at;
  };
  for (const [rank, entry] of entries.entries()) {
    // Older files write a pair as "left right".
    const pair: unknown[] = typeof entry === 'string' ? entry.split(' ') : [entry].flat();
    const [leftId, rightId, mergedId] = [pair[0], pair[1], pair.join('')].map((token) =>
      vocab.get(String(token)),
    );
    if (leftId === undefined || rightId === undefined || mergedId === undefined) {
      throw new TokenizerError(
        `tokenizer.json: model.merges.${rank}: ${JSON.stringify(entry)} is not two tokens ` +
          'of the vocabulary that make a third',
      );
    }
    const at = place(leftId, rightId);
    // A pair that is listed twice keeps its first, lower rank.
    if (lefts[at] !== -1) continue;
    lefts[at] = leftId;
    rights[at] = rightId;
    ranks[at] = rank;
    merged[rank] = mergedId;
  }
  return {
    rank(left, right) {
      const at = place(left, right);
      return lefts[at] === -1 ? -1 : (ranks[at] ?? missing());
    },
    merged,
  };
}

/** The ids of the byte alphabet by character code. */
function readSymbols(vocab: ReadonlyMap<string, number>): Int32Array {
  const symbolOf = new Int32Array(0x200).fill(-1);
  for (const [byte, character] of byteAlphabet.entries()) {
    const id = vocab.get(character);
    if (id === undefined && isNeverInText(byte)) continue;
    if (id === undefined) {
      throw new TokenizerError(`tokenizer.json: model.vocab has no token for the byte ${byte}`);
    }
    symbolOf[character.charCodeAt(0)] = id;
  }
  return symbolOf;
}

/** Bytes that UTF-8 has no use for: a vocabulary may give their ids to control tokens. */
function isNeverInText(byte: number): boolean {
  return byte === 0xc0 || byte === 0xc1 || byte > 0xf4;
}

function mergeShort(symbols: Int32Array, merges: Merges, out: number[]): void {
  let length = symbols.length;
  for (;;) {
    let best = -1;
    let bestRank = Infinity;
    for (let at = 0; at + 1 < length; at++) {
      const rank = merges.rank(symbols[at] ?? missing(), symbols[at + 1] ?? missing());
      if (rank >= 0 && rank < bestRank) [best, bestRank] = [at, rank];
    }
    if (best < 0) break;
    symbols[best] = merges.merged[bestRank] ?? missing();
    symbols.copyWithin(best + 1, best + 2, length);
    length--;
  }
  for (let at = 0; at < length; at++) out.push(symbols[at] ?? missing());
}

/**
 * `symbols` becomes a linked list of what is left; the heap holds candidates as rank * 2^32 +
 * place. A candidate may have been overtaken by another merge: it counts only if its place still
 * has a pair of that rank.
 */
function mergeLong(
  symbols: Int32Array,
  merges: Merges,
  { out, pause }: { out: number[]; pause: () => void },
): void {
  const { length } = symbols;
  const next = Int32Array.from(symbols, (_, at) => at + 1);
  const previous = Int32Array.from(symbols, (_, at) => at - 1);
  // Each merge takes one candidate and adds two at most, and there are fewer merges than symbols.
  const heap = new MinHeap(2 * length);
  const rankAt = (at: number): number => {
    const right = next[at] ?? missing();
    return right < length ? merges.rank(symbols[at] ?? missing(), symbols[right] ?? missing()) : -1;
  };
  const propose = (at: number): void => {
    const rank = rankAt(at);
    if (rank >= 0) heap.push(rank * 2 ** 32 + at);
  };
  for (let at = 0; at + 1 < length; at++) propose(at);

  for (let count = 1; heap.size > 0; count++) {
    if (count % mergesPerPause === 0) pause();
    const candidate = heap.pop();
    const rank = Math.floor(candidate / 2 ** 32);
    const at = candidate % 2 ** 32;
    if (symbols[at] === -1 || rankAt(at) !== rank) continue;
    const right = next[at] ?? missing();
    const after = next[right] ?? missing();
    symbols[at] = merges.merged[rank] ?? missing();
    symbols[right] = -1;
    next[at] = after;
    if (after < length) previous[after] = at;
    propose(at);
    const before = previous[at] ?? missing();
    if (before >= 0) propose(before);
  }
  for (let at = 0; at < length; at = next[at] ?? missing()) out.push(symbols[at] ?? missing());
}

/** A binary heap of numbers of a fixed capacity. */
class MinHeap {
  readonly #values: Float64Array;
  size = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(capacity);
  }

  push(value: number): void {
    const values = this.#values;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = values[parent] ?? missing();
      if (above <= value) break;
      values[at] = above;
      at = parent;
    }
    values[at] = value;
  }

  /** Only of a heap that isn't empty. */
  pop(): number {
    const values = this.#values;
    const top = values[0] ?? missing();
    const last = values[--this.size] ?? missing();
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && (values[child + 1] ?? missing()) < (values[child] ?? missing()))
        child++;
      const below = values[child] ?? missing();
      if (below >= last) break;
      values[at] = below;
      at = child;
    }
    values[at] = last;
    return top;
  }
}
