/** Loads the same checkpoints from a real S3-compatible server. */
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { openDirectory } from '../../../../gpu-worker/weights/directory-source.ts';
import { makeManifest, manifestName } from '../../../../gpu-worker/weights/manifest-file.ts';
import { defaultSourceSettings, openSource } from '../../../../gpu-worker/weights/open-source.ts';
import { CheckpointError } from '../../../../gpu-worker/weights/source.ts';
import { pack } from '../../../support/weights/safetensors-writer.ts';
import {
  digestOf,
  quickTuning,
  useStore,
  writePartedCheckpoint,
} from '../../../support/weights/s3-checkpoint.ts';
import { startSwift, swiftCredentials } from '../../../support/weights/swift.ts';
import type { Swift } from '../../../support/weights/swift.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const folder = temporaryDirectory();
const Bucket = 'models';
const tuning = { ...quickTuning, partBytes: 16 * 1024 };
let swift: Swift;
let client: S3Client;
let truth: string;

beforeAll(async () => {
  swift = await startSwift();
  client = new S3Client({
    endpoint: swift.url,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: swiftCredentials,
    requestChecksumCalculation: 'WHEN_REQUIRED',
  });
  await client.send(new CreateBucketCommand({ Bucket }));
  const directory = writePartedCheckpoint(join(folder, 'model'));
  await upload(directory, 'plain');
  await writeManifest(directory);
  await upload(directory, 'listed');
  truth = await digestOf(await openDirectory(directory));
});
afterAll(() => swift?.[Symbol.asyncDispose]());
beforeEach(() => useStore(swift.url, swiftCredentials));

const newCache = () => mkdtempSync(join(folder, 'cache-'));

async function put(Key: string, Body: Uint8Array): Promise<void> {
  await client.send(new PutObjectCommand({ Bucket, Key, Body }));
}

async function upload(directory: string, prefix: string): Promise<void> {
  for (const name of readdirSync(directory)) {
    await put(`${prefix}/${name}`, readFileSync(join(directory, name)));
  }
}

async function writeManifest(directory: string): Promise<void> {
  const source = await openDirectory(directory);
  const manifest = await makeManifest(source, { partBytes: tuning.partBytes });
  writeFileSync(join(directory, manifestName), JSON.stringify(manifest));
}

async function load(
  prefix: string,
  { cache = newCache(), onProgress }: { cache?: string; onProgress?: () => void } = {},
): Promise<string> {
  const settings = { ...defaultSourceSettings, cacheDirectory: cache };
  await using source = await openSource(`s3://${Bucket}/${prefix}`, settings, tuning);
  return await digestOf(source, onProgress);
}

async function refusal(loading: Promise<unknown>): Promise<string> {
  const error: unknown = await loading.then(
    () => 'accepted',
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return error instanceof Error ? error.message : '';
}

test.each(['plain', 'listed'])('a checkpoint loads cold and warm: %s', async (prefix) => {
  const cache = newCache();
  expect(await load(prefix, { cache })).toBe(truth);
  expect(await load(prefix, { cache })).toBe(truth);
});

test('an object that changes midway aborts the load', async () => {
  const directory = writePartedCheckpoint(join(folder, 'midway'), 3);
  await upload(directory, 'midway');
  const file = 'model-00002-of-00002.safetensors';
  await using source = await openSource(
    `s3://${Bucket}/midway`,
    { ...defaultSourceSettings, cacheDirectory: newCache(), connections: 1 },
    tuning,
  );
  await source.read(file, 0, new Uint8Array(8));
  await put(`midway/${file}`, Buffer.alloc(readFileSync(join(directory, file)).length));
  expect(await refusal(digestOf(source))).toContain(`${file}: it changed in the store`);
});

test('a file that was uploaded in parts has no checksum, which is said without a manifest', async () => {
  const said = vi.spyOn(console, 'error').mockImplementation(() => {});
  onTestFinished(() => said.mockRestore());
  const directory = join(folder, 'multipart');
  writePartedCheckpoint(directory);
  const name = 'model.safetensors';
  const bytes = new Uint8Array(6_000_000).map((_, i) => i * 7);
  writeFileSync(
    join(directory, name),
    pack([{ name: 'large', dtype: 'U8', shape: [bytes.length], bytes }]),
  );
  const index = 'model.safetensors.index.json';
  writeFileSync(join(directory, index), JSON.stringify({ weight_map: { large: name } }));
  await upload(directory, 'multipart');
  await uploadInParts(`multipart/${name}`, readFileSync(join(directory, name)));

  await using source = await openSource(
    `s3://${Bucket}/multipart`,
    { ...defaultSourceSettings, cacheDirectory: newCache() },
    { ...tuning, partBytes: 2 ** 20 },
  );
  const into = new Uint8Array(readFileSync(join(directory, name)).length);
  await source.read(name, 0, into);
  expect(Buffer.compare(into, readFileSync(join(directory, name)))).toBe(0);
  expect(said).not.toHaveBeenCalled();
  await source.verify(name);
  expect(said).toHaveBeenCalledOnce();
});

async function uploadInParts(Key: string, body: Buffer): Promise<void> {
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key }));
  const Parts: { ETag: string | undefined; PartNumber: number }[] = [];
  for (let start = 0; start < body.length; start += 5 * 2 ** 20) {
    const PartNumber = Parts.length + 1;
    const Body = body.subarray(start, start + 5 * 2 ** 20);
    const { ETag } = await client.send(
      new UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body }),
    );
    Parts.push({ ETag, PartNumber });
  }
  await client.send(
    new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } }),
  );
}

test('wrong secrets, unknown keys, missing buckets and prefixes are told apart', async () => {
  useStore(swift.url, { ...swiftCredentials, secretAccessKey: 'wrong' });
  expect(await refusal(load('plain'))).toContain('check AWS_SECRET_ACCESS_KEY');
  useStore(swift.url, { ...swiftCredentials, accessKeyId: 'test:nobody' });
  expect(await refusal(load('plain'))).toMatch(/AWS_(SECRET_ACCESS_KEY|ACCESS_KEY_ID)/);
  useStore(swift.url, swiftCredentials);
  expect(await refusal(load('nothing'))).toContain('holds no files');
  const settings = { ...defaultSourceSettings, cacheDirectory: newCache() };
  const message = await refusal(openSource('s3://no-such-bucket/x', settings, tuning));
  expect(message).toContain('there is no such bucket');
});
