/**
 * `sift.manifest.json`: the SHA-256 of every file of a checkpoint and of each of its parts, so that
 * what a store sends is verified part by part, before any tensor is used.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { at } from '../at.ts';
import { parseJsonObject } from './json-files.ts';
import { cutEvenly, planRuns } from './parts.ts';
import type { ByteRange } from './parts.ts';
import { readHeader } from './safetensors.ts';
import { CheckpointError } from './source.ts';
import type { SourceFile, WeightSource } from './source.ts';

export const manifestName = 'sift.manifest.json';

/** A part is read into memory whole; published manifests have parts of 8 to 16 MiB. */
const partBytesMax = 2 ** 30;

const hash = z.string().regex(/^[0-9a-f]{64}$/, 'is not a SHA-256 in hex');
const offset = z.int().min(0);

const fileSchema = z.strictObject({
  bytes: offset,
  sha256: hash,
  /** Parts in the order of their bytes, without gaps: the byte after the last, and the hash. */
  parts: z.array(z.tuple([offset, hash])),
});

export const manifestSchema = z.strictObject({
  version: z.literal(1),
  partBytes: z
    .int()
    .min(1)
    .max(partBytesMax / 2),
  files: z.record(z.string(), fileSchema),
});

export type Manifest = z.infer<typeof manifestSchema>;

export interface HashedPart extends ByteRange {
  readonly sha256: string;
}

/** @throws CheckpointError that names the manifest and what is wrong with it. */
export function parseManifest(source: WeightSource, bytes: Uint8Array): Manifest {
  const parsed = manifestSchema.safeParse(parseJsonObject(source, manifestName, bytes));
  const fail = (problem: string) =>
    new CheckpointError(`${source.location}: ${manifestName}: ${problem}`);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw fail(`${issue?.path.join('.') || 'it'}: ${issue?.message}`);
  }
  for (const [name, file] of Object.entries(parsed.data.files)) {
    const ends = [0, ...file.parts.map(([end]) => end)];
    if (ends.at(-1) !== file.bytes || ends.some((end, i) => i > 0 && end <= at(ends, i - 1))) {
      throw fail(`the parts of ${name} do not add up to its ${file.bytes} bytes`);
    }
    if (ends.some((end, i) => i > 0 && end - at(ends, i - 1) > partBytesMax)) {
      throw fail(`${name} has a part of more than ${partBytesMax} bytes`);
    }
  }
  return parsed.data;
}

export function partsOf(file: Manifest['files'][string]): HashedPart[] {
  let start = 0;
  return file.parts.map(([end, sha256]) => {
    const part = { start, end, sha256 };
    start = end;
    return part;
  });
}

/** Hashes every file of the source but the manifest itself; reads each once. */
export async function makeManifest(
  source: WeightSource,
  options: { partBytes: number; onProgress?: (bytesDone: number, bytesTotal: number) => void },
): Promise<Manifest> {
  const files: Manifest['files'] = {};
  const wanted = source.files.filter((file) => file.name !== manifestName);
  const bytesTotal = wanted.reduce((total, file) => total + file.bytes, 0);
  let bytesDone = 0;
  for (const file of wanted) {
    const whole = createHash('sha256');
    const parts: [number, string][] = [];
    for (const { start, end } of await planFileParts(source, file, options.partBytes)) {
      const bytes = new Uint8Array(end - start);
      await source.read(file.name, start, bytes);
      whole.update(bytes);
      parts.push([end, createHash('sha256').update(bytes).digest('hex')]);
      bytesDone += bytes.length;
      options.onProgress?.(bytesDone, bytesTotal);
    }
    files[file.name] = { bytes: file.bytes, sha256: whole.digest('hex'), parts };
  }
  return { version: 1, partBytes: options.partBytes, files };
}

/** The header, then the tensors; a file that holds none is cut evenly. All its bytes, in order. */
export async function planFileParts(
  source: WeightSource,
  file: SourceFile,
  partBytes: number,
): Promise<ByteRange[]> {
  if (!file.name.endsWith('.safetensors')) {
    return cutEvenly({ start: 0, end: file.bytes }, partBytes).filter(isFilled);
  }
  const tensors = await readHeader(source, file.name);
  const dataStart = tensors[0]?.start ?? file.bytes;
  const runs = planRuns(tensors, partBytes);
  return [{ start: 0, end: dataStart }, ...runs.flatMap((run) => run.parts)].filter(isFilled);
}

function isFilled({ start, end }: ByteRange): boolean {
  return end > start;
}
