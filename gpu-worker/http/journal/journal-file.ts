/**
 * Lines of the usage journal and the hourly files that hold them. A line is a JSON object with the
 * CRC-32 of its entry's text, so that a torn or damaged line is known for what it is:
 *
 *     {"crc32":"0f3a91c2","entry":{"kind":"final","id":"...","model":"...",...}}
 */
import { strict as assert } from 'node:assert';
import { closeSync, createReadStream, existsSync, openSync, readSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { z } from 'zod';

export const hourMs = 3_600_000;
/** The usage of a finished request can be asked for during this time. */
export const retentionMs = 24 * hourMs;

const lineEnd = 0x0a;
/** An id has at most 128 characters, so a longer line belongs to a model of a very long name. */
const lineBytesMax = 8_192;

const tokenCount = z.int().min(0);

const entrySchema = z.object({
  /**
   * `running` lines are checkpoints, the first of them with no tokens; `final` closes a request.
   */
  kind: z.enum(['running', 'done', 'aborted', 'failed']),
  id: z.string(),
  model: z.string(),
  startedMs: z.int(),
  updatedMs: z.int(),
  usage: z.object({
    promptTokens: tokenCount,
    cachedTokens: tokenCount,
    outputTokens: tokenCount,
    reasoningTokens: tokenCount,
  }),
});
export type JournalEntry = z.infer<typeof entrySchema>;

export function formatLine(entry: JournalEntry): string {
  const text = JSON.stringify(entry);
  return `{"crc32":"${checksum(text)}","entry":${text}}\n`;
}

const linePattern = /^\{"crc32":"([0-9a-f]{8})","entry":(\{.*\})\}$/;

/** `null` if the line is torn, damaged or not one of ours. */
export function parseLine(line: string): JournalEntry | null {
  const [, sum, text] = linePattern.exec(line) ?? [];
  if (sum === undefined || text === undefined || checksum(text) !== sum) return null;
  // The checksum matched, so the text is what formatLine wrote: JSON, if maybe of another version.
  return entrySchema.safeParse(JSON.parse(text)).data ?? null;
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

/** `usage-2026-11-23T18.jsonl`; names sort by time. */
export function fileNameAt(wallMs: number): string {
  return `usage-${new Date(wallMs).toISOString().slice(0, 13)}.jsonl`;
}

const namePattern = /^usage-(\d{4}-\d\d-\d\dT\d\d)\.jsonl$/;

/** The hour since 1970 whose lines a file of `listFiles` holds. */
export function fileHour(path: string): number {
  const [, hour] = namePattern.exec(basename(path)) ?? assert.fail(`${path} is none of ours`);
  return Date.parse(`${hour}:00Z`) / hourMs;
}

/** Paths of the journal's files, oldest first. */
export async function listFiles(directory: string): Promise<string[]> {
  const names = await readdir(directory);
  const ours = names.filter((name) => namePattern.test(name));
  return ours.toSorted().map((name) => join(directory, name));
}

/** Deletes the files whose last line is older than the retention. */
export async function pruneFiles(directory: string, wallMs: number): Promise<void> {
  // A file holds the lines of one hour, so its youngest line is up to an hour younger than its
  // name.
  const oldestKept = join(directory, fileNameAt(wallMs - retentionMs));
  const old = (await listFiles(directory)).filter((path) => path < oldestKept);
  await Promise.all(old.map((path) => rm(path, { force: true })));
}

/** Every line's entry in file order, and where the line begins; null for one that is damaged. */
export async function* readEntries(
  path: string,
): AsyncGenerator<{ readonly offset: number; readonly entry: JournalEntry | null }> {
  const stream = createReadStream(path);
  let rest: Buffer = Buffer.alloc(0);
  let offset = 0;
  for await (const piece of stream) {
    rest = Buffer.concat([rest, piece]);
    for (let end = rest.indexOf(lineEnd); end >= 0; end = rest.indexOf(lineEnd)) {
      if (end > 0) yield { offset, entry: parseLine(rest.toString('utf8', 0, end)) };
      offset += end + 1;
      rest = rest.subarray(end + 1);
    }
  }
  if (rest.length > 0) yield { offset, entry: parseLine(rest.toString()) };
}

/** The entry whose line begins there; null if none does, as after the file was deleted. */
export function readEntryAt(path: string, offset: number): JournalEntry | null {
  if (!existsSync(path)) return null;
  const descriptor = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(lineBytesMax);
    const read = readSync(descriptor, bytes, 0, bytes.length, offset);
    const end = bytes.subarray(0, read).indexOf(lineEnd);
    return end < 0 ? null : parseLine(bytes.toString('utf8', 0, end));
  } finally {
    closeSync(descriptor);
  }
}
