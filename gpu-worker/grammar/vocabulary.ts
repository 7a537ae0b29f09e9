/**
 * A tokenizer's vocabulary as a trie over bytes, laid out in the order of a walk, so that all
 * tokens that an automaton lets through are found in one pass that leaps over what it does not.
 */
import { strict as assert } from 'node:assert';
import { missing } from '../at.ts';

export class Vocabulary {
  /** Tokens of the model, those without a text included. */
  readonly size: number;
  /** 32-bit words of a mask with a bit for each token. */
  readonly words: number;
  /** [nodes] the last byte of each node's text, how long that is, and where its descendants end. */
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  /** [nodes] the first token of just this text, or -1; [size] the next one of the same text. */
  readonly tokens: Int32Array;
  readonly sameText: Int32Array;
  readonly depthMax: number;

  /** Tokens without bytes, and those that `isControl`, are not in it: a text has none of them. */
  constructor(options: {
    readonly size: number;
    tokenBytes(token: number): Uint8Array;
    isControl(token: number): boolean;
  }) {
    const { size } = options;
    const words: { token: number; text: string; bytes: Uint8Array }[] = [];
    for (let token = 0; token < size; token++) {
      const bytes = options.isControl(token) ? new Uint8Array() : options.tokenBytes(token);
      // Latin-1 strings sort as their bytes do, and several times as fast.
      if (bytes.length > 0)
        words.push({ token, text: Buffer.from(bytes).toString('latin1'), bytes });
    }
    words.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : a.token - b.token));

    this.size = size;
    this.words = Math.ceil(size / 32);
    this.sameText = new Int32Array(size).fill(-1);
    const nodesMax = words.reduce((sum, { bytes }) => sum + bytes.length, 0);
    const bytes = new Uint8Array(nodesMax);
    const depths = new Uint16Array(nodesMax);
    const ends = new Int32Array(nodesMax);
    const tokens = new Int32Array(nodesMax).fill(-1);
    let nodes = 0;
    /** The path to the node of the latest word. */
    const path: number[] = [];
    let before = '';
    let tail = -1;
    for (const word of words) {
      assert(word.bytes.length < 65_536, 'a token has fewer than 65,536 bytes');
      if (word.text === before) {
        this.sameText[tail] = word.token;
        tail = word.token;
        continue;
      }
      let shared = 0;
      while (shared < before.length && before.charCodeAt(shared) === word.bytes[shared]) shared++;
      while (path.length > shared) ends[path.pop() ?? missing()] = nodes;
      for (let index = shared; index < word.bytes.length; index++) {
        bytes[nodes] = word.bytes[index] ?? missing();
        depths[nodes] = index;
        path.push(nodes++);
      }
      tokens[nodes - 1] = word.token;
      tail = word.token;
      before = word.text;
    }
    while (path.length > 0) ends[path.pop() ?? missing()] = nodes;
    this.bytes = bytes.slice(0, nodes);
    this.depths = depths.slice(0, nodes);
    this.ends = ends.slice(0, nodes);
    this.tokens = tokens.slice(0, nodes);
    this.depthMax = this.depths.reduce((most, depth) => Math.max(most, depth), 0) + 1;
  }

  get nodes(): number {
    return this.bytes.length;
  }
}

/** Adds a token to a mask, which has a bit for each. */
export function setBit(mask: Uint32Array, token: number): void {
  const word = token >>> 5;
  mask[word] = (mask[word] ?? missing()) | (1 << (token & 31));
}

/** Adds all tokens of another mask. */
export function addBits(mask: Uint32Array, bits: Uint32Array): void {
  for (let word = 0; word < bits.length; word++) {
    mask[word] = (mask[word] ?? missing()) | (bits[word] ?? missing());
  }
}
