/** One door to a checkpoint's files, wherever they lie. */
import { openDirectory } from './directory-source.ts';
import { PartHasher } from './cache/part-hasher.ts';
import { CheckpointError } from './source.ts';
import type { WeightSource } from './source.ts';
import { verifyByManifest } from './verified-source.ts';
import { openWeightCache } from './cache/weight-cache.ts';

export interface SourceSettings {
  /** The folder of parts from a store; any number of workers may share it. */
  readonly cacheDirectory: string;
  readonly cacheBytesMax: number;
  /** Parts fetched side by side. */
  readonly connections: number;
  /** Bucket in the path, not in the host name; null: for every endpoint that is set. */
  readonly pathStyle: boolean | null;
}

export const defaultSourceSettings: SourceSettings = {
  cacheDirectory: './data/weights',
  cacheBytesMax: 2 ** 40,
  connections: 12,
  pathStyle: null,
};

/** The pace of asking a store, apart from what operators set; tests make it small and quick. */
export const s3Tuning = {
  partBytes: 8 * 2 ** 20,
  stallMs: 10_000,
  retries: { attemptsMax: 8, baseMs: 200, waitMaxMs: 10_000 },
};

/** A disk outruns a hash: as many as Node's pool has threads. */
const localHashes = 4;

/**
 * `location` is a path, a file:// URL or s3://bucket/prefix. The caller disposes of the source.
 * Rejects with a CheckpointError.
 */
export async function openSource(
  location: string,
  settings: SourceSettings = defaultSourceSettings,
  tuning: typeof s3Tuning = s3Tuning,
): Promise<WeightSource> {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(location)?.[1];
  if (scheme === undefined || scheme === 'file') {
    return verifyByManifest(await openDirectory(location), new PartHasher(localHashes));
  }
  if (scheme !== 's3') {
    throw new CheckpointError(`${location}: use a directory, a file:// URL or s3://bucket/prefix`);
  }
  // The S3 client is large, and only stores need it.
  const [{ openS3Source }, { parseS3Url, S3Store }] = await Promise.all([
    import('./s3/s3-source.ts'),
    import('./s3/s3-store.ts'),
  ]);
  const { connections, pathStyle } = settings;
  const hasher = new PartHasher();
  const store = await S3Store.open(parseS3Url(location), {
    connections,
    pathStyle,
    ...tuning,
  });
  const cache = await openWeightCache({
    directory: settings.cacheDirectory,
    bytesMax: settings.cacheBytesMax,
    hasher,
    warn: (line) => console.error(line),
  });
  try {
    return await openS3Source({
      store,
      cache,
      connections,
      partBytes: tuning.partBytes,
      onUnverified: (file) =>
        console.error(
          `${location}/${file}: the store gives no checksum, so only its size was verified; ` +
            'put a manifest beside it (npm run manifest)',
        ),
    });
  } catch (error) {
    store.close();
    await cache[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Loads from the source at that location. What was loaded may serve while the last parts are still
 * being flushed to the cache. Rejects with a CheckpointError, or as `load` does.
 */
export async function loadFromSource<Loaded>(
  location: string,
  settings: SourceSettings | undefined,
  load: (source: WeightSource) => Promise<Loaded>,
): Promise<Loaded> {
  const source = await openSource(location, settings);
  try {
    const loaded = await load(source);
    void source[Symbol.asyncDispose]();
    return loaded;
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}
