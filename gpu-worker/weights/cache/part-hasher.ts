/**
 * SHA-256 of parts from the disk, on Node's thread pool, so that the next can be read meanwhile.
 */
import { createHash } from 'node:crypto';
import { Slots } from '../s3/slots.ts';

/** The pool takes a copy of what it hashes; this many parts at most are held twice. */
const parallelHashesDefault = 2;
/** Below this the way to the pool takes longer than the hash. */
const smallBytes = 64 * 1024;

export class PartHasher {
  readonly #slots: Slots;

  constructor(parallelHashes: number = parallelHashesDefault) {
    this.#slots = new Slots(parallelHashes);
  }

  /** Hex. */
  async sha256(bytes: Uint8Array): Promise<string> {
    if (bytes.length < smallBytes) return createHash('sha256').update(bytes).digest('hex');
    // Nothing of ours lies in shared memory.
    const own = bytes as Uint8Array<ArrayBuffer>;
    const hash = await this.#slots.run(() => crypto.subtle.digest('SHA-256', own));
    return Buffer.from(hash).toString('hex');
  }
}
