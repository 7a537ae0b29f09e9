/**
 * The double as a process of its own, serving the files of one directory from the disk: `node
 * s3-double-process.ts <directory> <prefix> [bytes per second of a connection]`. Prints its URL;
 * ends with its standard input.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startS3Double } from './s3-double.ts';

const [directory = '.', prefix, bytesPerSecond] = process.argv.slice(2);
const double = await startS3Double({ pageObjects: 1000, keepsRequests: false });
if (bytesPerSecond !== undefined) double.connectionBytesPerSecond = Number(bytesPerSecond);
for (const name of readdirSync(directory)) {
  const file = join(directory, name);
  const status = statSync(file);
  if (!status.isFile()) continue;
  const { size, mtimeMs } = status;
  // Large files as an upload in parts leaves them: a version, not a checksum.
  const etag =
    size > 2 ** 25
      ? `"${size.toString(16).padStart(32, '0')}-${Math.floor(mtimeMs)}"`
      : `"${createHash('md5').update(readFileSync(file)).digest('hex')}"`;
  double.objects.set(`${prefix}/${name}`, { bytes: size, etag, headers: {}, content: { file } });
}
console.log(double.url);
process.stdin.resume().once('end', () => process.exit(0));
