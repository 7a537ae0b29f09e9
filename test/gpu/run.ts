/**
 * `npm run test:gpu [-- part ...]`: the CUDA backend against the cpu backend. Each part runs in a
 * process of its own, since a fault on the device ends all that its process has there.
 *
 * `npm run test:gpu -- --sanitize [tool ...]`: the kernels under NVIDIA's compute-sanitizer, its
 * tools memcheck and racecheck unless others are named, on steps small enough for them: minutes a
 * part. For racecheck kernels are compiled so that it can follow what orders their accesses
 * (kTraced in sm90.cuh).
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../gpu-worker/backend/cuda/', import.meta.url));
const suffix = '.gpu.ts';
/** The file of each part, by its name without the folder. */
const partFiles = new Map(
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(suffix))
    .map((file) => [basename(file, suffix), join(folder, file)]),
);
const partMsMax = 240_000;
const sanitizedMsMax = 480_000;
/**
 * `widths` reaches every kernel made for the published widths, and the plain ones; the others what
 * needs other shapes. With the words that CASES leaves of a part.
 */
const sanitizedParts: Readonly<Record<string, string>> = {
  widths: '',
  sampling: '',
  rows: '',
  caches: '',
  quantized: '',
  indexer: '',
  moe: 'fp8',
};
const sanitizerFolder = '/usr/local/cuda/bin';

const [first, ...rest] = process.argv.slice(2);
const failed =
  first === '--sanitize'
    ? sanitize(rest.length > 0 ? rest : ['memcheck', 'racecheck'])
    : runParts(process.argv.slice(2));
console.log(failed === 0 ? '\nall parts passed' : `\n${failed} parts failed`);
process.exitCode = failed === 0 ? 0 : 1;

function runParts(wanted: readonly string[]): number {
  const parts = wanted.length > 0 ? wanted : [...partFiles.keys()];
  return parts.filter((part) => {
    console.log(`\n# ${part}`);
    return !succeeds(process.execPath, [fileOf(part)]);
  }).length;
}

function fileOf(part: string): string {
  const file = partFiles.get(part);
  if (file === undefined)
    throw new Error(`there is no part ${part}: ${[...partFiles.keys()].join(', ')}`);
  return file;
}

function sanitize(tools: readonly string[]): number {
  return tools.flatMap((tool) =>
    Object.entries(sanitizedParts).filter(([part, CASES]) => {
      console.log(`\n# ${part} under ${tool}`);
      const flags = ['--tool', tool, '--error-exitcode', '9', '--print-limit', '200'];
      const command = [...flags, process.execPath, fileOf(part)];
      return !succeeds('compute-sanitizer', command, {
        ...(CASES === '' ? {} : { CASES }),
        SIFT_GPU_SMALL: '1',
        ...(tool === 'racecheck' ? { SIFT_GPU_TRACED: '1' } : {}),
      });
    }),
  ).length;
}

function succeeds(
  command: string,
  args: readonly string[],
  changes: Readonly<Record<string, string>> = {},
): boolean {
  const PATH = `${process.env['PATH'] ?? ''}${delimiter}${sanitizerFolder}`;
  const env = { ...process.env, PATH, ...changes };
  const msMax = command === process.execPath ? partMsMax : sanitizedMsMax;
  const { status, error, signal } = spawnSync(command, args, {
    stdio: 'inherit',
    timeout: msMax,
    env,
  });
  if (error !== undefined) console.log(`${command}: ${error.message}`);
  else if (signal !== null) console.log(`ended by ${signal} after at most ${msMax / 1000} s`);
  return status === 0;
}
