/**
 * Holds what is read of a checkpoint against its manifest, part by part, before anybody uses it.
 */
import { manifestName, parseManifest, partsOf } from './manifest-file.ts';
import type { HashedPart, Manifest } from './manifest-file.ts';
import { readAll } from './json-files.ts';
import type { PartHasher } from './cache/part-hasher.ts';
import { cutEvenly } from './parts.ts';
import { CheckpointError, fileBytes } from './source.ts';
import type { WeightSource } from './source.ts';

/** `source` itself where no manifest stands among its files. Rejects with a CheckpointError. */
export async function verifyByManifest(
  source: WeightSource,
  hasher: PartHasher,
): Promise<WeightSource> {
  if (fileBytes(source, manifestName) === null) return source;
  const manifest = parseManifest(source, await readAll(source, manifestName));

  /** Fills `into` with the part, or rejects. */
  async function readPart(name: string, part: HashedPart, into: Uint8Array, signal?: AbortSignal) {
    await source.read(name, part.start, into, signal);
    const actual = await hasher.sha256(into);
    if (actual === part.sha256) return;
    throw new CheckpointError(
      `${source.location}: ${name} is damaged: its bytes ${part.start} to ${part.end} have the ` +
        `SHA-256 ${actual}, ${manifestName} says ${part.sha256}`,
    );
  }

  return {
    ...source,
    partBytes: manifest.partBytes,
    async read(name, start, into, signal) {
      const end = start + into.length;
      const parts = manifestParts(source, manifest, name).filter(
        (part) => part.start < end && part.end > start,
      );
      const reads = parts.map(async (part) => {
        if (part.start >= start && part.end <= end) {
          await readPart(name, part, into.subarray(part.start - start, part.end - start), signal);
          return;
        }
        const whole = new Uint8Array(part.end - part.start);
        await readPart(name, part, whole, signal);
        const from = Math.max(start, part.start);
        const to = Math.min(end, part.end);
        into.set(whole.subarray(from - part.start, to - part.start), from - start);
      });
      await Promise.all(reads);
    },
  };
}

function manifestParts(source: WeightSource, manifest: Manifest, name: string): HashedPart[] {
  const file = Object.hasOwn(manifest.files, name) ? manifest.files[name] : undefined;
  const where = `${source.location}: ${name}`;
  if (file === undefined) {
    throw new CheckpointError(`${where} is not in ${manifestName}: make the manifest again`);
  }
  const bytes = fileBytes(source, name);
  if (file.bytes !== bytes) {
    throw new CheckpointError(`${where} has ${bytes} bytes, but ${file.bytes} in ${manifestName}`);
  }
  return partsOf(file);
}

/**
 * Reads every byte of every file once, so that whatever the manifest or the store's checksums can
 * tell is told before any of it is used. Rejects with a CheckpointError, also where there are
 * neither.
 */
export async function verifyWhole(
  source: WeightSource,
  onProgress?: (bytesDone: number, bytesTotal: number) => void,
): Promise<void> {
  const isStore = source.location.startsWith('s3://');
  if (!isStore && fileBytes(source, manifestName) === null) {
    throw new CheckpointError(
      `${source.location} has no ${manifestName} to verify it by: make one with npm run manifest`,
    );
  }
  const files = source.files.filter(({ name }) => name !== manifestName);
  const bytesTotal = files.reduce((total, { bytes }) => total + bytes, 0);
  let bytesDone = 0;
  const scratch = new Uint8Array(2 * source.partBytes);
  for (const { name, bytes } of files) {
    for (const { start, end } of cutEvenly({ start: 0, end: bytes }, source.partBytes)) {
      await source.read(name, start, scratch.subarray(0, end - start));
      bytesDone += end - start;
      onProgress?.(bytesDone, bytesTotal);
    }
    await source.verify(name);
  }
}
