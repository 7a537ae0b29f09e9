/**
 * A grammar on its way between threads. It may be megabytes of tables: packed into shared memory it
 * passes through a thread that only hands it on, at no cost there, and is opened once where it
 * runs.
 */
import { deserialize, serialize } from 'node:v8';
import type { Grammar } from './grammar.ts';

export interface PackedGrammar {
  /** The key of the grammar. */
  readonly key: string;
  readonly bytes: SharedArrayBuffer;
  /**
   * Tokens that only the answer may hold: in the reasoning before it they would seem to begin it.
   */
  readonly answerTokens: readonly number[];
}

export function packGrammar(grammar: Grammar, answerTokens: readonly number[] = []): PackedGrammar {
  const packed = serialize(grammar);
  const bytes = new SharedArrayBuffer(packed.length);
  new Uint8Array(bytes).set(packed);
  return { key: grammar.key, bytes, answerTokens };
}

export function unpackGrammar({ bytes }: PackedGrammar): Grammar {
  // Only packGrammar above makes these bytes.
  return deserialize(Buffer.from(bytes)) as Grammar;
}
