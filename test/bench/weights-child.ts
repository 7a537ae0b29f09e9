/**
 * One measured piece of work in a process of its own: `node weights-child.ts <kind> <location>
 * <cache directory>`. Prints one JSON object: seconds, seconds of processor time, bytes, peak
 * resident memory and what the backend kept.
 */
import { GetObjectCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { at } from '../../gpu-worker/at.ts';
import { openCpuBackend } from '../../gpu-worker/backend/cpu/cpu-backend.ts';
import { parseModelConfig } from '../../gpu-worker/model/families.ts';
import { tensorSpecs } from '../../gpu-worker/model/mla-moe/tensors.ts';
import { openModel } from '../../gpu-worker/open-model.ts';
import { openCheckpoint } from '../../gpu-worker/weights/checkpoint.ts';
import { readConfig } from '../../gpu-worker/weights/json-files.ts';
import { defaultSourceSettings, openSource } from '../../gpu-worker/weights/open-source.ts';
import { readTensors } from '../../gpu-worker/weights/read-tensors.ts';
import { parseS3Url } from '../../gpu-worker/weights/s3/s3-store.ts';

const kind = at(process.argv, 2);
const location = at(process.argv, 3);
const cacheDirectory = process.argv[4] ?? defaultSourceSettings.cacheDirectory;
const kinds: Readonly<Record<string, () => Promise<{ bytes: number; keptBytes?: number }>>> = {
  'get-object': () => getObjects(),
  'read-files': () => readFiles(),
  'write-file': () => writeFileDurably(),
  load: () => loadTensors(2 ** 40),
  'load-uncached': () => loadTensors(0),
  model: () => loadModel(),
};

const startedMs = performance.now();
const run = kinds[kind];
assert(run !== undefined, `${kind} is no kind of load`);
const work = await run();
const seconds = (performance.now() - startedMs) / 1000;
const peakBytes =
  Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
const { user, system } = process.cpuUsage();
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, peakBytes, ...work }));
process.exit(0);

/**
 * Reads as plainly as the SDK can be used: one object after another, nothing kept, nothing
 * verified.
 */
async function getObjects(): Promise<{ bytes: number }> {
  const { bucket: Bucket, prefix: Prefix } = parseS3Url(location);
  const client = new S3Client({ forcePathStyle: true });
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket, Prefix }));
  let bytes = 0;
  for (const { Key } of Contents) {
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
    // On Node the SDK's body is a stream of Node.
    for await (const chunk of Body as AsyncIterable<Uint8Array>) bytes += chunk.length;
  }
  return { bytes };
}

async function readFiles(): Promise<{ bytes: number }> {
  const buffer = new Uint8Array(8 * 2 ** 20);
  let bytes = 0;
  for (const name of await readdir(location)) {
    await using file = await open(join(location, name));
    for (;;) {
      const { bytesRead } = await file.read(buffer);
      if (bytesRead === 0) break;
      bytes += bytesRead;
    }
  }
  return { bytes };
}

/** Measures the disk: 1 GB, flushed. */
async function writeFileDurably(): Promise<{ bytes: number }> {
  const buffer = new Uint8Array(8 * 2 ** 20).fill(1);
  await using file = await open(location, 'w');
  for (let i = 0; i < 128; i++) await file.write(buffer);
  await file.datasync();
  return { bytes: 128 * buffer.length };
}

/** All tensors, verified, and let go as they come. */
async function loadTensors(cacheBytesMax: number): Promise<{ bytes: number }> {
  const settings = { ...defaultSourceSettings, cacheDirectory, cacheBytesMax };
  await using source = await openSource(location, settings);
  const specs = [...tensorSpecs(parseModelConfig(await readConfig(source)))];
  let bytes = 0;
  for await (const tensor of readTensors(await openCheckpoint(source), specs)) {
    bytes += tensor.bytes.length;
  }
  return { bytes };
}

/** The whole way to a model on the CPU backend, which keeps the weights. */
async function loadModel(): Promise<{ bytes: number; keptBytes: number }> {
  let bytes = 0;
  const { backend } = await openModel({
    location,
    weights: { ...defaultSourceSettings, cacheDirectory },
    compute: { numerics: 'f32', attention: 'sparse' },
    limits: { rowsMax: 16, logitRowsMax: 1 },
    openBackend: (numerics, { rowsMax }) => openCpuBackend({ numerics, rowsMax, threads: 1 }),
    blocks: 2,
    onProgress: (_, total) => (bytes = total),
  });
  return { bytes, keptBytes: backend.memory.use().weightBytes };
}
