/**
 * One bucket and prefix of an S3-compatible store: listing, an object's checksum, ranges of one
 * pinned version. Every request is repeated while its failure may heal; what is left is a
 * CheckpointError that says what to do.
 */
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  S3Client,
} from '@aws-sdk/client-s3';
import type { GetObjectCommandOutput, HeadObjectCommandOutput } from '@aws-sdk/client-s3';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ByteRange } from '../parts.ts';
import { RangeConnections } from './range-connections.ts';
import type { RangeRequest } from './range-connections.ts';
import { retrying } from './retries.ts';
import type { RetrySettings } from './retries.ts';
import { DamagedPart, isTransient, toCheckpointError } from './s3-errors.ts';
import { Slots } from './slots.ts';
import { CheckpointError } from '../source.ts';

/** Far above any published checkpoint, which has a few hundred files. */
const objectsMax = 10_000;

export interface S3Settings {
  /** Requests under way at once. */
  readonly connections: number;
  /** Bucket in the path, not in the host name; by default for every endpoint that is set. */
  readonly pathStyle: boolean | null;
  /** A body of which nothing came for so long is given up and asked for again. */
  readonly stallMs: number;
  readonly retries: RetrySettings;
}

/** One version of an object: what it was when it was listed. */
export interface PinnedObject {
  readonly name: string;
  readonly key: string;
  readonly bytes: number;
  /** The tag with its quotes, as the store writes it. */
  readonly etag: string;
}

export interface S3Location {
  readonly bucket: string;
  /** Empty, or ends with a slash. */
  readonly prefix: string;
}

/** @throws CheckpointError unless it is s3://bucket or s3://bucket/prefix. */
export function parseS3Url(location: string): S3Location {
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(location);
  const [, bucket, path = ''] = match ?? [];
  if (bucket === undefined) {
    throw new CheckpointError(`${location} is not of the form s3://bucket/prefix`);
  }
  const prefix = path.replace(/\/+$/, '');
  return { bucket, prefix: prefix === '' ? '' : `${prefix}/` };
}

export class S3Store {
  readonly url: string;
  /** Tells stores apart that have buckets of the same name. */
  readonly endpoint: string;
  readonly #location: S3Location;
  readonly #client: S3Client;
  readonly #settings: S3Settings;
  readonly #slots: Slots;
  readonly #connections = new RangeConnections();

  private constructor(location: S3Location, client: S3Client, settings: S3Settings) {
    this.url = `s3://${location.bucket}/${location.prefix}`.replace(/\/$/, '');
    this.endpoint = process.env.AWS_ENDPOINT_URL_S3 || process.env.AWS_ENDPOINT_URL || 'aws';
    this.#location = location;
    this.#client = client;
    this.#settings = settings;
    this.#slots = new Slots(settings.connections);
  }

  /** Endpoint, region and credentials come from where the AWS tools find them. */
  static async open(location: S3Location, settings: S3Settings): Promise<S3Store> {
    const endpoint = process.env.AWS_ENDPOINT_URL_S3 || process.env.AWS_ENDPOINT_URL;
    const options = {
      forcePathStyle: settings.pathStyle ?? Boolean(endpoint),
      // Retries are counted in one place, here.
      maxAttempts: 1,
      // Parts are verified against the manifest or the whole object, not by the SDK.
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: 5000,
        requestTimeout: settings.stallMs,
        throwOnRequestTimeout: true,
        httpAgent: { maxSockets: settings.connections },
        httpsAgent: { maxSockets: settings.connections },
      },
    } as const;
    const client = new S3Client(options);
    const region = await client.config.region().catch(() => null);
    if (region !== null) return new S3Store(location, client, settings);
    if (!endpoint) {
      throw new CheckpointError(`s3://${location.bucket}: no region: set AWS_REGION`);
    }
    // Other stores mostly ignore the region, but requests are signed for one.
    const regional = new S3Client({ ...options, region: 'us-east-1' });
    return new S3Store(location, regional, settings);
  }

  /** The objects right under the prefix, in the order of their names, each pinned. */
  async list(): Promise<PinnedObject[]> {
    const { bucket, prefix } = this.#location;
    const objects: PinnedObject[] = [];
    let token: string | undefined;
    do {
      const page = await this.#request(this.url, (abortSignal) =>
        this.#client.send(
          new ListObjectsV2Command({
            Bucket: bucket,
            Prefix: prefix,
            Delimiter: '/',
            ContinuationToken: token,
          }),
          { abortSignal },
        ),
      );
      for (const { Key: key = '', Size: bytes, ETag: etag } of page.Contents ?? []) {
        const name = key.slice(prefix.length);
        // Consoles mark a folder by an empty object of its name.
        if (name === '') continue;
        if (bytes === undefined || etag === undefined) {
          throw new CheckpointError(`${this.url}/${name}: the store lists no size or no ETag`);
        }
        objects.push({ name, key, bytes, etag });
      }
      if (objects.length > objectsMax) {
        throw new CheckpointError(`${this.url} has more than ${objectsMax} objects`);
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
    return objects.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Asks what the store knows of the pinned version, its checksums above all. */
  head(object: PinnedObject, signal?: AbortSignal): Promise<HeadObjectCommandOutput> {
    return this.#request(
      this.#where(object),
      async (abortSignal) => {
        const head = await this.#client.send(
          new HeadObjectCommand({
            Bucket: this.#location.bucket,
            Key: object.key,
            IfMatch: object.etag,
            ChecksumMode: 'ENABLED',
          }),
          { abortSignal },
        );
        this.#refuseOther(object, head.ETag);
        return head;
      },
      signal,
    );
  }

  /**
   * Fills `into` with a range of the pinned version and resolves to the SHA-256 of what came.
   * `check` throws DamagedPart if it should be asked for again. An object that changed ends in an
   * error.
   */
  fetch(options: {
    object: PinnedObject;
    part: ByteRange;
    into: Uint8Array;
    check(sha256: string): void | Promise<void>;
    signal?: AbortSignal | undefined;
  }): Promise<string> {
    const { object, part, into, check, signal } = options;
    return this.#request(
      this.#where(object),
      async (abortSignal) => {
        const hash = createHash('sha256');
        const command = new GetObjectCommand({
          Bucket: this.#location.bucket,
          Key: object.key,
          IfMatch: object.etag,
          Range: `bytes=${part.start}-${part.end - 1}`,
        });
        // The SDK signs the request and reads the answer's head; the body goes where it belongs.
        command.middlewareStack.add(
          () => async (args) => {
            const answer = await this.#connections.get(toRangeRequest(args.request), {
              into,
              hash,
              stallMs: this.#settings.stallMs,
              signal: abortSignal,
            });
            const { status: statusCode, headers, body } = answer;
            const response = { statusCode, headers, body: Readable.from([body]) };
            // The deserializer, which is the next step outwards, fills the output in.
            return { response } as { response: unknown; output: GetObjectCommandOutput };
          },
          { step: 'deserialize', priority: 'low', name: 'readIntoPart' },
        );
        const { ContentRange, ETag } = await this.#client.send(command, { abortSignal });
        this.#refuseOther(object, ETag);
        const range = `bytes ${part.start}-${part.end - 1}/${object.bytes}`;
        if (ContentRange !== range) {
          throw new DamagedPart(`asked for ${range}, the store sent ${ContentRange ?? 'no range'}`);
        }
        const sha256 = hash.digest('hex');
        await check(sha256);
        return sha256;
      },
      signal,
    );
  }

  close(): void {
    this.#connections.close();
    this.#client.destroy();
  }

  async #request<T>(
    where: string,
    attempt: (signal: AbortSignal) => Promise<T>,
    signal = new AbortController().signal,
  ): Promise<T> {
    try {
      const { retries } = this.#settings;
      // The slot is kept while waiting to try again: a store that is too busy gets fewer requests.
      return await this.#slots.run(() =>
        retrying(() => attempt(signal), { ...retries, isTransient, signal }),
      );
    } catch (error) {
      throw toCheckpointError(where, error);
    }
  }

  /** Not every store heeds If-Match, so the answer is looked at too. */
  #refuseOther(object: PinnedObject, etag: string | undefined): void {
    // Some stores write the quotes in listings only.
    if (etag?.replaceAll('"', '') === object.etag.replaceAll('"', '')) return;
    throw new CheckpointError(
      `${this.#where(object)}: it changed in the store while it was being loaded: ` +
        `its ETag was ${object.etag} and is ${etag ?? 'gone'}`,
    );
  }

  #where({ name }: PinnedObject): string {
    return `${this.url}/${name}`;
  }
}

/** The SDK's request, as it would go out. */
function toRangeRequest(request: unknown): RangeRequest {
  // The SDK's serializer of every S3 command makes one of these.
  const { protocol, hostname, port, path, query, headers } = request as HttpRequest;
  const secure = protocol === 'https:';
  const pairs = Object.entries(query).map(
    ([name, value]) => `${escape(name)}=${escape(String(value))}`,
  );
  return {
    secure,
    hostname,
    port: port ?? (secure ? 443 : 80),
    path: pairs.length === 0 ? path : `${path}?${pairs.join('&')}`,
    headers,
  };
}

/** The fields that are used of the SDK's type, which it keeps in a package of its own. */
interface HttpRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly query: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;
}

/** The escapes that signatures are made over (RFC 3986). */
function escape(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
