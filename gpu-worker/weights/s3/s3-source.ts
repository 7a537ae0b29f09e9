/**
 * A checkpoint in an S3-compatible store. Files are fetched in parts over many connections, each
 * part verified, kept in the cache and journalled before it is handed over; what the cache holds is
 * not fetched. Where `sift.manifest.json` stands beside the files, each part has to have its
 * SHA-256; else each file as a whole has to have the store's checksum, before `verify` lets it
 * pass.
 */
import { fileChecksum } from './file-checksum.ts';
import type { FileChecksum } from './file-checksum.ts';
import { manifestName, parseManifest, partsOf, planFileParts } from '../manifest-file.ts';
import type { HashedPart, Manifest } from '../manifest-file.ts';
import type { PartJournal } from '../cache/part-journal.ts';
import { cutEvenly } from '../parts.ts';
import type { ByteRange } from '../parts.ts';
import { DamagedPart } from './s3-errors.ts';
import type { PinnedObject, S3Store } from './s3-store.ts';
import { headerBytesMax } from '../safetensors.ts';
import { CheckpointError } from '../source.ts';
import type { WeightSource } from '../source.ts';
import type { WeightCache } from '../cache/weight-cache.ts';

export interface S3SourceOptions {
  readonly store: S3Store;
  readonly cache: WeightCache;
  readonly connections: number;
  /** The size of a part where no manifest says how files are cut. */
  readonly partBytes: number;
  /** Told once for each file that has neither a manifest nor a checksum. */
  onUnverified(file: string): void;
}

/** A part whose hash is known before it is fetched (manifest), after (journal), or not yet. */
interface Part extends ByteRange {
  readonly sha256: string | null;
}

/** An object, how it is cut, and how its bytes are proven. */
interface OpenFile {
  readonly object: PinnedObject;
  readonly parts: readonly Part[];
  /** Null where the manifest holds a hash of every part. */
  readonly proof: WholeProof | null;
}

interface WholeProof {
  readonly journal: PartJournal;
  /** Null if the store gives none. */
  readonly checksum: FileChecksum | null;
}

/** Lists and pins the objects. Rejects with a CheckpointError. */
export async function openS3Source(options: S3SourceOptions): Promise<WeightSource> {
  const objects = await options.store.list();
  if (objects.length === 0) throw new CheckpointError(`${options.store.url} holds no files`);
  const plain = new S3Source(options, objects, null);
  if (!objects.some(({ name }) => name === manifestName)) return plain;
  const manifest = parseManifest(plain, await plain.readWhole(manifestName));
  return new S3Source(options, objects, manifest);
}

class S3Source implements WeightSource {
  readonly location: string;
  readonly files: readonly PinnedObject[];
  readonly partBytes: number;
  readonly parallelParts: number;
  readonly #options: S3SourceOptions;
  readonly #manifest: Manifest | null;
  readonly #open = new Map<string, Promise<OpenFile>>();
  /** Parts that are on their way, by file and range: nobody asks the store twice. */
  readonly #arriving = new Map<string, Promise<void>>();

  constructor(
    options: S3SourceOptions,
    objects: readonly PinnedObject[],
    manifest: Manifest | null,
  ) {
    this.location = options.store.url;
    this.files = objects;
    this.partBytes = manifest?.partBytes ?? options.partBytes;
    this.parallelParts = options.connections;
    this.#options = options;
    this.#manifest = manifest;
  }

  async read(name: string, start: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const file = await this.#openFile(name);
    const end = start + into.length;
    if (end > file.object.bytes) {
      throw new CheckpointError(
        `${this.location}/${name} ends at byte ${file.object.bytes}, before byte ${end}`,
      );
    }
    const parts = file.parts.filter((part) => part.start < end && part.end > start);
    await Promise.all(
      parts.map(async (part) => {
        if (part.start >= start && part.end <= end) {
          const target = into.subarray(part.start - start, part.end - start);
          await this.#readPart(file, part, target, signal);
          return;
        }
        const whole = new Uint8Array(part.end - part.start);
        await this.#readPart(file, part, whole, signal);
        const from = Math.max(start, part.start);
        const to = Math.min(end, part.end);
        into.set(whole.subarray(from - part.start, to - part.start), from - start);
      }),
    );
  }

  async verify(name: string, signal?: AbortSignal): Promise<void> {
    const file = await this.#openFile(name);
    if (file.proof === null) return;
    const { journal, checksum } = file.proof;
    if (checksum === null) return this.#options.onUnverified(name);
    if (journal.isWhole(file.parts)) return;
    const running = checksum.start();
    const scratch = new Uint8Array(Math.max(...file.parts.map(({ start, end }) => end - start)));
    for (const part of file.parts) {
      const bytes = scratch.subarray(0, part.end - part.start);
      await this.#readPart(file, part, bytes, signal);
      running.update(bytes);
    }
    const actual = await running.digest();
    if (actual === checksum.expected) return journal.addWhole(file.parts);
    await journal.forget();
    throw new CheckpointError(
      `${this.location}/${name}: the bytes that came have the ${checksum.algorithm} ${actual}, ` +
        `the store recorded ${checksum.expected}; ` +
        'they are forgotten, a new load fetches them again',
    );
  }

  async readWhole(name: string): Promise<Uint8Array> {
    const { object } = await this.#openFile(name);
    const bytes = new Uint8Array(object.bytes);
    await this.read(name, 0, bytes);
    await this.verify(name);
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#options.store.close();
    await this.#options.cache[Symbol.asyncDispose]();
  }

  /** Reads a part from the cache, else from the store. A part that is on its way is waited for. */
  async #readPart(
    file: OpenFile,
    part: Part,
    into: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    const key = `${file.object.name}:${part.start}-${part.end}`;
    for (;;) {
      const other = this.#arriving.get(key);
      if (other === undefined) break;
      await other;
    }
    const arriving = this.#bringPart(file, part, into, signal);
    this.#arriving.set(key, arriving);
    try {
      await arriving;
    } finally {
      this.#arriving.delete(key);
    }
  }

  async #bringPart(
    { object, proof }: Pick<OpenFile, 'object' | 'proof'>,
    part: Part,
    into: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    const { store, cache } = this.#options;
    const known = part.sha256 ?? proof?.journal.sha256(part) ?? null;
    if (known !== null && (await cache.get(known, into))) return;
    const isWhole = part.start === 0 && part.end === object.bytes;
    const checksum = isWhole ? (proof?.checksum ?? null) : null;
    const sha256 = await store.fetch({
      object,
      part,
      into,
      signal,
      async check(actual) {
        if (part.sha256 !== null && part.sha256 !== actual) {
          throw new DamagedPart(
            `bytes ${part.start} to ${part.end} came with the SHA-256 ${actual}, ` +
              `${manifestName} says ${part.sha256}`,
          );
        }
        if (checksum !== null) await checkWhole(checksum, into);
      },
    });
    proof?.journal.learn(part, sha256);
    await cache.put({
      sha256,
      bytes: into,
      onKept: async () => proof?.journal.add(part, sha256),
    });
    if (checksum !== null) await proof?.journal.addWhole([part]);
  }

  #openFile(name: string): Promise<OpenFile> {
    const opening = this.#open.get(name) ?? this.#planFile(name);
    this.#open.set(name, opening);
    return opening;
  }

  async #planFile(name: string): Promise<OpenFile> {
    const object = this.files.find((file) => file.name === name);
    if (object === undefined) throw new CheckpointError(`${this.location}/${name} is missing`);
    const { store, cache } = this.#options;
    if (this.#manifest !== null) {
      const parts = this.#manifestParts(object, this.#manifest);
      await Promise.all(parts.map(({ sha256 }) => cache.touch(sha256)));
      return { object, parts, proof: null };
    }
    const checksum = fileChecksum(await store.head(object));
    const pin = [store.endpoint, store.url, object.key, object.etag, String(object.bytes)];
    const proof = { journal: await cache.journal(pin), checksum };
    const parts = (await this.#cut(object, proof)).map((part) => ({ ...part, sha256: null }));
    const known = parts.flatMap((part) => proof.journal.sha256(part) ?? []);
    await Promise.all(known.map((sha256) => cache.touch(sha256)));
    return { object, parts, proof };
  }

  #manifestParts(object: PinnedObject, manifest: Manifest): HashedPart[] {
    const file = manifest.files[object.name];
    const where = `${this.location}/${object.name}`;
    if (file === undefined) {
      throw new CheckpointError(`${where} is not in ${manifestName}: make the manifest again`);
    }
    if (file.bytes !== object.bytes) {
      throw new CheckpointError(
        `${where} has ${object.bytes} bytes, but ${file.bytes} in ${manifestName}`,
      );
    }
    return partsOf(file);
  }

  /** Tensor files on tensor boundaries, once their header is there; other files are one part. */
  async #cut(object: PinnedObject, proof: WholeProof): Promise<ByteRange[]> {
    const whole = { start: 0, end: object.bytes };
    if (object.bytes === 0) return [];
    if (!object.name.endsWith('.safetensors')) return [whole];
    const dataStart = proof.journal.endOf(0) ?? (await this.#headerEnd(object));
    if (dataStart === null) return cutEvenly(whole, this.partBytes);
    const header = new Uint8Array(dataStart);
    const part = { start: 0, end: dataStart, sha256: null };
    await this.#bringPart({ object, proof }, part, header);
    try {
      return await planFileParts(headerSource(this, header), object, this.partBytes);
    } catch (error) {
      // Any cut is a right one; what is wrong with the header is for its reader to say.
      if (error instanceof CheckpointError) return cutEvenly(whole, this.partBytes);
      throw error;
    }
  }

  /** Reads where the file says that its header ends; null if it can't be so. */
  async #headerEnd(object: PinnedObject): Promise<number | null> {
    if (object.bytes < 8) return null;
    const into = new Uint8Array(8);
    await this.#options.store.fetch({ object, part: { start: 0, end: 8 }, into, check() {} });
    const headerBytes = new DataView(into.buffer).getBigUint64(0, true);
    const fits = headerBytes <= headerBytesMax && headerBytes + 8n <= object.bytes;
    return fits ? Number(headerBytes) + 8 : null;
  }
}

async function checkWhole(checksum: FileChecksum, bytes: Uint8Array): Promise<void> {
  const running = checksum.start();
  running.update(bytes);
  const actual = await running.digest();
  if (actual === checksum.expected) return;
  throw new DamagedPart(
    `it came with the ${checksum.algorithm} ${actual}, the store recorded ${checksum.expected}`,
  );
}

/** A source of which nothing is known but the first bytes of one file. */
function headerSource(source: WeightSource, header: Uint8Array): WeightSource {
  return {
    location: source.location,
    files: source.files,
    partBytes: source.partBytes,
    parallelParts: 1,
    async read(name, start, into) {
      if (start + into.length > header.length) {
        throw new CheckpointError(`${source.location}/${name} has a header of another length`);
      }
      into.set(header.subarray(start, start + into.length));
    },
    async verify() {},
    async [Symbol.asyncDispose]() {},
  };
}
