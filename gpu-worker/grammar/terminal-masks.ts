/**
 * Masks over a vocabulary that are kept, and the part of them that terminals decide by themselves.
 */
import { missing } from '../at.ts';
import { afterByte } from './dfa.ts';
import type { Terminal } from './grammar.ts';
import { setBit } from './vocabulary.ts';
import type { Vocabulary } from './vocabulary.ts';

/** Memory of masks that are kept, of terminals and of states each. */
const maskBytesMax = 64 * 2 ** 20;
/** A mask takes so many bytes beside its contents. */
const bookkeepingBytes = 128;
/** Masks with fewer tokens are kept as lists. */
const listedTokensMax = 256;

/** The part of a mask that a place in a terminal decides by itself. */
export interface TerminalMask {
  /** Tokens all of whose bytes are inside; as a list or as bits. */
  readonly list: Int32Array | null;
  readonly bits: Uint32Array | null;
  /** Nodes of the vocabulary where the terminal may end and tokens go on. */
  readonly exits: Int32Array;
}

/** Forgets all at once when it is full: what is in use comes back at the next step. */
export class BoundedMasks<Key> {
  readonly #masks = new Map<Key, Uint32Array>();
  #bytes = 0;

  get(key: Key): Uint32Array | undefined {
    return this.#masks.get(key);
  }

  set(key: Key, mask: Uint32Array): void {
    if (this.#bytes + mask.byteLength > maskBytesMax) {
      this.#masks.clear();
      this.#bytes = 0;
    }
    this.#bytes += mask.byteLength;
    this.#masks.set(key, mask);
  }
}

/** The parts of masks that terminals decide by themselves. */
export class TerminalMasks {
  readonly #vocabulary: Vocabulary;
  readonly #masks = new Map<string, (TerminalMask | undefined)[]>();
  #bytes = 0;

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
  }

  at(terminal: Terminal, place: number): TerminalMask {
    let places = this.#masks.get(terminal.key);
    if (places === undefined) this.#masks.set(terminal.key, (places = []));
    const known = places[place];
    if (known !== undefined) return known;
    const mask = this.#compute(terminal, place);
    this.#bytes += bookkeepingBytes + mask.exits.byteLength;
    this.#bytes += (mask.list ?? mask.bits ?? mask.exits).byteLength;
    if (this.#bytes > maskBytesMax) {
      this.#masks.clear();
      this.#bytes = 0;
    } else places[place] = mask;
    return mask;
  }

  /** Computes the masks of a terminal by one pass over the vocabulary. */
  #compute({ dfa }: Terminal, place: number): TerminalMask {
    const { bytes, depths, ends, tokens, sameText, nodes, words } = this.#vocabulary;
    const places = new Int32Array(this.#vocabulary.depthMax + 1);
    places[0] = place;
    const found: number[] = [];
    const exits: number[] = [];
    for (let node = 0; node < nodes;) {
      const depth = depths[node] ?? missing();
      const end = ends[node] ?? missing();
      const reached = afterByte(dfa, places[depth] ?? missing(), bytes[node] ?? missing());
      if (reached < 0) {
        node = end;
        continue;
      }
      places[depth + 1] = reached;
      for (let token = tokens[node] ?? missing(); token >= 0;) {
        found.push(token);
        token = sameText[token] ?? missing();
      }
      if (dfa.accepts[reached] === 1 && end > node + 1) exits.push(node);
      node++;
    }
    if (found.length <= listedTokensMax) {
      return { list: Int32Array.from(found), bits: null, exits: Int32Array.from(exits) };
    }
    const bits = new Uint32Array(words);
    for (const token of found) setBit(bits, token);
    return { list: null, bits, exits: Int32Array.from(exits) };
  }
}
