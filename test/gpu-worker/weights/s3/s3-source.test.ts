import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  afterAll,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFinished,
  test,
  vi,
} from 'vitest';
import { at } from '../../../../gpu-worker/at.ts';
import { fileChecksum } from '../../../../gpu-worker/weights/s3/file-checksum.ts';
import { makeManifest, manifestName } from '../../../../gpu-worker/weights/manifest-file.ts';
import type { Manifest } from '../../../../gpu-worker/weights/manifest-file.ts';
import { openDirectory } from '../../../../gpu-worker/weights/directory-source.ts';
import { defaultSourceSettings, openSource } from '../../../../gpu-worker/weights/open-source.ts';
import { CheckpointError } from '../../../../gpu-worker/weights/source.ts';
import {
  digestOf,
  quickTuning,
  useStore,
  writePartedCheckpoint,
} from '../../../support/weights/s3-checkpoint.ts';
import {
  credentials,
  expiredToken,
  putDirectory,
  startS3Double,
} from '../../../support/weights/s3-double.ts';
import type { DoubleRequest, Fault, S3Double } from '../../../support/weights/s3-double.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const folder = temporaryDirectory();
const plain = writePartedCheckpoint(join(folder, 'plain'));
const listed = writePartedCheckpoint(join(folder, 'listed'));
let truth: string;
let double: S3Double;

beforeAll(async () => {
  double = await startS3Double();
  const source = await openDirectory(listed);
  const manifest = await makeManifest(source, { partBytes: quickTuning.partBytes });
  writeFileSync(join(listed, manifestName), JSON.stringify(manifest));
  truth = await digestOf(source);
});
afterAll(() => double[Symbol.asyncDispose]());

beforeEach(() => {
  useStore(double.url);
  double.fault = () => null;
  double.objects.clear();
  putDirectory(double, plain, 'plain');
  putDirectory(double, listed, 'listed');
  double.requests.length = 0;
});

const newCache = () => mkdtempSync(join(folder, 'cache-'));

/** Paths of the parts that a cache holds, in the order of their hashes. */
const cachedParts = (cache: string) =>
  readdirSync(join(cache, 'sha256'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.length > 64)
    .toSorted()
    .map((path) => join(cache, 'sha256', path));

/** The digest of what a load gives, through a cache of its own unless one is given. */
async function load(
  kind: 'plain' | 'listed',
  cacheDirectory = newCache(),
  tuning = quickTuning,
): Promise<string> {
  const settings = { ...defaultSourceSettings, cacheDirectory };
  await using source = await openSource(`s3://models/${kind}`, settings, tuning);
  return await digestOf(source);
}

async function refusal(loading: Promise<unknown>): Promise<string> {
  const error: unknown = await loading.then(
    () => 'accepted',
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  const message = error instanceof Error ? error.message : '';
  expect(message).not.toContain('\n');
  return message;
}

const rangesOf = () => double.requests.filter(({ range }) => range !== null);
const isTensorPart = ({ key, range }: DoubleRequest) =>
  key.endsWith('.safetensors') && range !== null && range[0] > 0;

const firstTime =
  (fault: Fault) =>
  ({ range, earlier }: DoubleRequest): Fault | null =>
    range !== null && earlier === 0 ? fault : null;

describe.each(['plain', 'listed'] as const)('a checkpoint in a store, %s', (kind) => {
  test('loads the same tensors as from its directory, each part asked for once', async () => {
    expect(await load(kind)).toBe(truth);
    expect(rangesOf().length).toBeGreaterThan(20);
    expect(rangesOf().filter(({ earlier }) => earlier > 0)).toEqual([]);
  });

  test('is cut on tensor boundaries, into parts of one to two times the wanted size', async () => {
    await load(kind);
    const sizes = rangesOf()
      .filter(isTensorPart)
      .map(({ range }) => (range === null ? 0 : range[1] - range[0]));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(2 * quickTuning.partBytes);
    // Smaller ones end a file or stand before a large tensor.
    expect(sizes.filter((size) => size < quickTuning.partBytes).length).toBeLessThan(10);
  });

  test('is not fetched again once the cache holds it', async () => {
    const cache = newCache();
    await load(kind, cache);
    double.requests.length = 0;
    expect(await load(kind, cache)).toBe(truth);
    expect(rangesOf()).toEqual([]);
  });

  test('is fetched anew where the cache is damaged', async () => {
    const cache = newCache();
    await load(kind, cache);
    const damaged = at(cachedParts(cache), 7);
    const bytes = readFileSync(damaged);
    bytes[3] = at(bytes, 3) ^ 1;
    writeFileSync(damaged, bytes);
    double.requests.length = 0;
    expect(await load(kind, cache)).toBe(truth);
    expect(rangesOf()).toHaveLength(1);
  });

  test('loads in several workers at once that share a cache', async () => {
    const cache = newCache();
    const digests = await Promise.all(Array.from({ length: 4 }, () => load(kind, cache)));
    expect(digests).toEqual([truth, truth, truth, truth]);
  });

  test.each<[string, Fault]>([
    ['bodies are cut', { kind: 'cut', afterBytes: 1000 }],
    ['bodies are cut before their first byte', { kind: 'cut', afterBytes: 0 }],
    ['the store asks to slow down', { kind: 'status', status: 503, code: 'SlowDown' }],
    ['the store fails', { kind: 'status', status: 500, code: 'InternalError' }],
    ['bodies come slowly', { kind: 'slow', pieceMs: 3 }],
  ])('heals when %s', async (_, fault) => {
    double.fault = firstTime(fault);
    expect(await load(kind)).toBe(truth);
  });

  test('heals when bodies stall', async () => {
    double.fault = (request) =>
      isTensorPart(request) && request.earlier === 0 ? { kind: 'stall' } : null;
    const tuning = { ...quickTuning, stallMs: 300 };
    expect(await load(kind, newCache(), tuning)).toBe(truth);
  });

  test('heals when listing is turned away at first', async () => {
    double.fault = ({ key, earlier }) =>
      key === '' && earlier === 0 ? { kind: 'status', status: 503, code: 'SlowDown' } : null;
    expect(await load(kind)).toBe(truth);
  });

  test.each<[string, Fault, string]>([
    ['are cut', { kind: 'cut', afterBytes: 100 }, 'the body broke off after 100 of'],
    ['are turned away', { kind: 'status', status: 503, code: 'SlowDown' }, 'SlowDown'],
    ['come whole', { kind: 'whole' }, 'the store sent no range'],
    ['are not there', { kind: 'status', status: 404, code: 'NoSuchKey' }, 'not in the store'],
    ['are forbidden', { kind: 'status', status: 403, code: 'AccessDenied' }, 's3:GetObject'],
    ['end early', { kind: 'status', status: 416, code: 'InvalidRange' }, 'it changed'],
  ])('ends in one error when parts %s, time and again', async (_, fault, message) => {
    double.fault = (request) => (isTensorPart(request) ? fault : null);
    const text = await refusal(load(kind));
    expect(text).toMatch(/^s3:\/\/models\/\w+\/model-0000\d-of-00002\.safetensors: /);
    expect(text).toContain(message);
  });

  test('aborts when an object changes midway, and loads the new one after', async () => {
    const cache = newCache();
    const changed = writePartedCheckpoint(join(folder, 'changed'), 2);
    double.fault = () => {
      if (rangesOf().length === 20) putDirectory(double, changed, kind);
      return null;
    };
    expect(await refusal(load(kind, cache))).toContain('changed in the store');
    if (kind === 'listed') double.objects.delete(`listed/${manifestName}`);
    const expected = await digestOf(await openDirectory(changed));
    expect(await load(kind, cache)).toBe(expected);
  });

  test('aborts when an object changes in a store that ignores If-Match', async () => {
    double.fault = (request) =>
      isTensorPart(request) && rangesOf().length > 20 ? { kind: 'etag', etag: '"other"' } : null;
    expect(await refusal(load(kind))).toContain('its ETag was');
  });

  test('says so when it is gone since it was listed', async () => {
    double.fault = ({ range }) => {
      if (range !== null) double.objects.delete(`${kind}/model-00002-of-00002.safetensors`);
      return null;
    };
    const message = await refusal(load(kind));
    expect(message).toContain('model-00002-of-00002.safetensors: it is not in the store');
  });
});

describe('wrong bytes', () => {
  test('are asked for again where a manifest tells', async () => {
    double.fault = firstTime({ kind: 'flip' });
    // The manifest itself has the store's MD5 to answer to.
    expect(await load('listed')).toBe(truth);
  });

  test('that stay wrong are refused by the manifest', async () => {
    double.fault = (request) => (isTensorPart(request) ? { kind: 'flip' } : null);
    expect(await refusal(load('listed'))).toMatch(/bytes \d+ to \d+ came with the SHA-256/);
  });

  test('in small files heal without a manifest', async () => {
    double.fault = (request) =>
      request.key.endsWith('.json') && request.earlier === 0 ? { kind: 'flip' } : null;
    expect(await load('plain')).toBe(truth);
  });

  test('in tensors are found by the checksum of the whole file, and forgotten', async () => {
    const cache = newCache();
    let flips = 0;
    double.fault = (request) => (isTensorPart(request) && flips++ === 5 ? { kind: 'flip' } : null);
    expect(await refusal(load('plain', cache))).toContain('have the MD5');
    double.fault = () => null;
    expect(await load('plain', cache)).toBe(truth);
  });

  test('in a header are found', async () => {
    let flips = 0;
    double.fault = ({ key, range }) =>
      key.endsWith('.safetensors') && range?.[0] === 0 && flips++ < 1 ? { kind: 'flip' } : null;
    const outcome = await load('plain').catch((error: unknown) => error);
    // A byte that reading skips may be the one that was flipped.
    expect(outcome === truth || outcome instanceof CheckpointError).toBe(true);
  });
});

describe("a store's checksum", () => {
  const key = 'plain/model-00001-of-00002.safetensors';

  /** Puts an object as a store keeps one that was uploaded in parts. */
  function putWithChecksum(headers: Record<string, string>): void {
    const object = double.objects.get(key);
    if (object === undefined) throw new Error('the object was put before');
    const etag = '"0123456789abcdef0123456789abcdef-2"';
    double.objects.set(key, { ...object, etag, headers });
  }

  async function crc64(): Promise<string> {
    const checksum = fileChecksum({ $metadata: {}, ChecksumCRC64NVME: 'x' })?.start();
    checksum?.update(readFileSync(join(plain, 'model-00001-of-00002.safetensors')));
    return (await checksum?.digest()) ?? '';
  }

  test('over the whole object is checked', async () => {
    const right = await crc64();
    putWithChecksum({ 'x-amz-checksum-crc64nvme': right, 'x-amz-checksum-type': 'FULL_OBJECT' });
    expect(await load('plain')).toBe(truth);
    const wrong = Buffer.from(right, 'base64').fill(7).toString('base64');
    putWithChecksum({ 'x-amz-checksum-crc64nvme': wrong, 'x-amz-checksum-type': 'FULL_OBJECT' });
    expect(await refusal(load('plain'))).toContain('CRC64NVME');
  });

  test('of checksums proves nothing, which is said', async () => {
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    onTestFinished(() => said.mockRestore());
    putWithChecksum({ 'x-amz-checksum-sha256': 'AAAA-2', 'x-amz-checksum-type': 'COMPOSITE' });
    expect(await load('plain')).toBe(truth);
    expect(said).toHaveBeenCalledOnce();
    expect(said.mock.calls[0]?.[0]).toContain(`${key}: the store gives no checksum`);
  });
});

describe('access is refused with what to do', () => {
  test.each<[string, () => void, string]>([
    [
      'a wrong secret',
      () => useStore(double.url, { ...credentials, secretAccessKey: 'wrong' }),
      'check AWS_SECRET_ACCESS_KEY',
    ],
    [
      'an unknown key',
      () => useStore(double.url, { ...credentials, accessKeyId: 'unknown' }),
      'does not know AWS_ACCESS_KEY_ID',
    ],
    [
      'expired credentials',
      () => (process.env.AWS_SESSION_TOKEN = expiredToken),
      'the credentials have expired',
    ],
    ['no credentials', () => delete process.env.AWS_ACCESS_KEY_ID, 'set AWS_ACCESS_KEY_ID'],
  ])('for %s', async (_, arrange, message) => {
    arrange();
    const text = await refusal(load('plain'));
    expect(text).toMatch(/^s3:\/\/models\/plain: /);
    expect(text).toContain(message);
    expect(double.requests.length).toBeLessThanOrEqual(1);
  });

  test('for a listing that is not allowed', async () => {
    double.fault = ({ key }) =>
      key === '' ? { kind: 'status', status: 403, code: 'AccessDenied' } : null;
    expect(await refusal(load('plain'))).toContain('s3:ListBucket');
  });

  test('for a bucket or a prefix that is not there, and a malformed URL', async () => {
    const open = (location: string) =>
      refusal(
        openSource(location, { ...defaultSourceSettings, cacheDirectory: newCache() }, quickTuning),
      );
    expect(await open('s3://nobody/x')).toContain('s3://nobody/x: there is no such bucket');
    expect(await open('s3://models/nothing')).toBe('s3://models/nothing holds no files');
    expect(await open('s3://')).toContain('not of the form s3://bucket/prefix');
    expect(await open('https://host/model')).toContain('use a directory');
  });

  test('for a store that does not answer', async () => {
    useStore('http://127.0.0.1:9');
    expect(await refusal(load('plain'))).toMatch(/^s3:\/\/models\/plain: .*ECONNREFUSED/);
  });

  test('for a missing region where no endpoint is set', async () => {
    delete process.env.AWS_ENDPOINT_URL_S3;
    delete process.env.AWS_REGION;
    expect(await refusal(load('plain'))).toContain('set AWS_REGION');
  });

  test('for a cache that cannot be written', async () => {
    const file = join(newCache(), 'file');
    writeFileSync(file, '');
    expect(await refusal(load('plain', file))).toContain("cache can't be kept in");
  });
});

describe('a manifest is refused', () => {
  const manifest = () => JSON.parse(readFileSync(join(listed, manifestName), 'utf8')) as Manifest; // Made above.

  test.each<[string, (manifest: Manifest) => unknown, string]>([
    ['that lacks a file', (it) => ({ ...it, files: {} }), 'is not in sift.manifest.json'],
    ['of another version', (it) => ({ ...it, version: 2 }), 'sift.manifest.json: version'],
    [
      'without files',
      ({ version, partBytes }) => ({ version, partBytes }),
      'sift.manifest.json: files',
    ],
    ['that is no object', () => 7, 'sift.manifest.json is not a JSON object'],
    [
      'whose sizes are not those of the store',
      (it) => ({
        ...it,
        files: {
          ...it.files,
          'config.json': { bytes: 3, sha256: 'a'.repeat(64), parts: [[3, 'b'.repeat(64)]] },
        },
      }),
      'but 3 in sift.manifest.json',
    ],
    [
      'whose parts leave bytes out',
      (it) => ({
        ...it,
        files: {
          ...it.files,
          'config.json': { bytes: 9, sha256: 'a'.repeat(64), parts: [[3, 'b'.repeat(64)]] },
        },
      }),
      'do not add up to its 9 bytes',
    ],
  ])('%s', async (_, change, message) => {
    double.put(`listed/${manifestName}`, Buffer.from(JSON.stringify(change(manifest()))));
    expect(await refusal(load('listed'))).toContain(message);
  });
});
