/**
 * A small S3 server with faults on demand: signatures, listing in pages, ranges, If-Match,
 * checksums. Bodies are written to the socket directly, so that they can be cut, stalled and
 * damaged.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs';
import type { ReadStream } from 'node:fs';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { at } from '../../../gpu-worker/at.ts';
import { accessKeyOf, isSignedWith } from './s3-signature.ts';

export const credentials = { accessKeyId: 'AKIDDOUBLE', secretAccessKey: 'double-secret' };
export const expiredToken = 'expired-session-token';

export interface DoubleObject {
  readonly bytes: number;
  /** The tag with its quotes. */
  readonly etag: string;
  /** Further headers of HEAD, such as x-amz-checksum-crc64nvme. */
  readonly headers: Readonly<Record<string, string>>;
  readonly content: Buffer | { readonly file: string };
}

export interface DoubleRequest {
  readonly method: string;
  readonly bucket: string;
  /** Empty for requests to the bucket. */
  readonly key: string;
  /** First byte and the one after the last; null without a Range header. */
  readonly range: readonly [number, number] | null;
  /** Requests of the same method, key and range that came before. */
  readonly earlier: number;
}

export type Fault =
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** The connection closes after so many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** Half of the body comes, and then nothing while the connection stays open. */
  | { readonly kind: 'stall' }
  /** The body comes in ten pieces. */
  | { readonly kind: 'slow'; readonly pieceMs: number }
  /** One bit of the body is wrong. */
  | { readonly kind: 'flip' }
  | { readonly kind: 'etag'; readonly etag: string }
  /** Answers as stores do that know no ranges. */
  | { readonly kind: 'whole' };

export interface S3Double extends AsyncDisposable {
  readonly url: string;
  readonly bucket: string;
  readonly objects: Map<string, DoubleObject>;
  readonly requests: DoubleRequest[];
  /** Asked before each answer. */
  fault: (request: DoubleRequest) => Fault | null;
  /** The rate of a connection for objects that are files, as stores bound it; null for no bound. */
  connectionBytesPerSecond: number | null;
  put(key: string, content: Buffer, headers?: Record<string, string>): void;
}

interface DoubleEnv {
  Bindings: { outgoing: ServerResponse };
}

type DoubleContext = Context<DoubleEnv>;

/** Listens on a free port of loopback. `pageObjects` is the size of a page of a listing. */
export async function startS3Double(
  options: { bucket?: string; pageObjects?: number; keepsRequests?: boolean } = {},
): Promise<S3Double> {
  const { bucket = 'models', pageObjects = 3, keepsRequests = true } = options;
  const objects = new Map<string, DoubleObject>();
  const requests: DoubleRequest[] = [];
  const app = new Hono<DoubleEnv>();
  app.all('/:bucket/:key{.*}', (c) => answer(c, c.req.param('key')));
  app.all('/:bucket', (c) => answer(c, ''));

  async function answer(c: DoubleContext, key: string): Promise<Response> {
    const request = toRequest(c, key);
    if (keepsRequests) requests.push(request);
    const refusal = refuse(c);
    if (refusal !== null) return refusal;
    const fault = double.fault(request);
    if (fault?.kind === 'status') return failure(c, fault.status, fault.code);
    if (request.bucket !== bucket) return failure(c, 404, 'NoSuchBucket');
    if (key === '') return list(c, objects, pageObjects);
    const object = objects.get(key);
    if (object === undefined) return failure(c, 404, 'NoSuchKey');
    const { connectionBytesPerSecond } = double;
    return answerObject(c, { object, range: request.range, fault, connectionBytesPerSecond });
  }

  function toRequest(c: DoubleContext, key: string): DoubleRequest {
    const { method } = c.req;
    const [, start, last] = /^bytes=(\d+)-(\d+)$/.exec(c.req.header('range') ?? '') ?? [];
    const range = start === undefined ? null : ([Number(start), Number(last) + 1] as const);
    const earlier = requests.filter(
      (other) =>
        other.method === method && other.key === key && String(other.range) === String(range),
    ).length;
    return { method, bucket: c.req.param('bucket') ?? '', key, range, earlier };
  }

  // Answers are written by hand, because the adaptor would not let bodies be cut and damaged.
  const server = createServer(async (incoming, outgoing) => {
    const headers = new Headers(incoming.headers as Record<string, string>); // Requests of one value each.
    const url = `http://${incoming.headers.host}${incoming.url}`;
    const response = await app.fetch(
      new Request(url, { method: incoming.method ?? 'GET', headers }),
      {
        outgoing,
      },
    );
    if (outgoing.headersSent) return;
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.end(Buffer.from(await response.arrayBuffer()));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A server that listens on TCP has an address with a port.
  const address = server.address() as AddressInfo;
  const double: S3Double = {
    url: `http://127.0.0.1:${address.port}`,
    bucket,
    objects,
    requests,
    fault: () => null,
    connectionBytesPerSecond: null,
    put(key, content, headers = {}) {
      const etag = `"${createHash('md5').update(content).digest('hex')}"`;
      objects.set(key, { bytes: content.length, etag, headers, content });
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return double;
}

/** Every file of a directory, under `prefix`, read into memory. */
export function putDirectory(double: S3Double, directory: string, prefix: string): void {
  for (const name of readdirSync(directory)) {
    const file = join(directory, name);
    if (statSync(file).isFile()) double.put(`${prefix}/${name}`, readFileSync(file));
  }
}

/** Wrong, unknown and expired credentials, each with the answer of S3. */
function refuse(c: DoubleContext): Response | null {
  const { headers, method, url } = c.req.raw;
  if (accessKeyOf(headers) === null) return failure(c, 403, 'AccessDenied');
  if (accessKeyOf(headers) !== credentials.accessKeyId) {
    return failure(c, 403, 'InvalidAccessKeyId');
  }
  if (!isSignedWith({ method, url: new URL(url), headers }, credentials.secretAccessKey)) {
    return failure(c, 403, 'SignatureDoesNotMatch');
  }
  const token = headers.get('x-amz-security-token');
  return token === expiredToken ? failure(c, 400, 'ExpiredToken') : null;
}

function list(
  c: DoubleContext,
  objects: ReadonlyMap<string, DoubleObject>,
  pageObjects: number,
): Response {
  const prefix = c.req.query('prefix') ?? '';
  const after = c.req.query('continuation-token') ?? '';
  const keys = [...objects.keys()]
    .filter((key) => key.startsWith(prefix) && !key.slice(prefix.length).includes('/'))
    .filter((key) => key > after)
    .toSorted();
  const page = keys.slice(0, pageObjects);
  const isTruncated = keys.length > page.length;
  const contents = page.map((key) => {
    const { etag, bytes } = objects.get(key) ?? { etag: '', bytes: 0 };
    return `<Contents><Key>${key}</Key><ETag>${etag}</ETag><Size>${bytes}</Size></Contents>`;
  });
  const next = isTruncated ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : '';
  return xml(
    c,
    200,
    `<ListBucketResult><IsTruncated>${isTruncated}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`,
  );
}

async function answerObject(
  c: DoubleContext,
  options: {
    object: DoubleObject;
    range: DoubleRequest['range'];
    fault: Fault | null;
    connectionBytesPerSecond: number | null;
  },
): Promise<Response> {
  const { object, fault } = options;
  const wanted = c.req.header('if-match');
  if (wanted !== undefined && wanted !== object.etag) return failure(c, 412, 'PreconditionFailed');
  const range = fault?.kind === 'whole' ? null : options.range;
  const [start, end] = range ?? [0, object.bytes];
  if (end > object.bytes) return failure(c, 416, 'InvalidRange');
  const headers: Record<string, string | number> = {
    'content-length': end - start,
    etag: fault?.kind === 'etag' ? fault.etag : object.etag,
    ...(range && { 'content-range': `bytes ${start}-${end - 1}/${object.bytes}` }),
    ...object.headers,
  };
  const response = c.env.outgoing;
  response.writeHead(range === null ? 200 : 206, headers);
  if (c.req.method === 'HEAD') response.end();
  else if (fault === null && 'file' in object.content) {
    const { file } = object.content;
    const content = createReadStream(file, { start, end: end - 1, highWaterMark: 2 ** 20 });
    const bytesPerSecond = options.connectionBytesPerSecond;
    if (bytesPerSecond === null) content.pipe(response);
    else await writePaced(response, content, bytesPerSecond);
  } else await writeBody(response, contentOf(object).subarray(start, end), fault);
  // Nothing of it is looked at: the answer is on its way.
  return new Response();
}

async function writePaced(
  response: ServerResponse,
  content: ReadStream,
  bytesPerSecond: number,
): Promise<void> {
  const startedMs = performance.now();
  let bytes = 0;
  for await (const chunk of content as AsyncIterable<Buffer>) {
    response.write(chunk);
    bytes += chunk.length;
    const dueMs = startedMs + (bytes / bytesPerSecond) * 1000;
    await sleep(Math.max(0, dueMs - performance.now()));
  }
  response.end();
}

async function writeBody(
  response: ServerResponse,
  body: Buffer,
  fault: Fault | null,
): Promise<void> {
  if (fault?.kind === 'cut') {
    response.write(body.subarray(0, fault.afterBytes), () => response.destroy());
  } else if (fault?.kind === 'stall') {
    response.write(body.subarray(0, body.length / 2));
  } else if (fault?.kind === 'slow') {
    const step = Math.max(1, Math.ceil(body.length / 10));
    for (let start = 0; start < body.length && !response.destroyed; start += step) {
      response.write(body.subarray(start, start + step));
      await sleep(fault.pieceMs);
    }
    response.end();
  } else if (fault?.kind === 'flip') {
    const damaged = Buffer.from(body);
    const middle = damaged.length >> 1;
    damaged[middle] = at(damaged, middle) ^ 1;
    response.end(damaged);
  } else {
    response.end(body);
  }
}

function contentOf({ content }: DoubleObject): Buffer {
  return 'file' in content ? readFileSync(content.file) : content;
}

function failure(c: DoubleContext, status: number, code: string): Response {
  return xml(
    c,
    status,
    `<Error><Code>${code}</Code><Message>${code}, says the double</Message></Error>`,
  );
}

function xml(c: DoubleContext, status: number, body: string): Response {
  // Hono's type lists the statuses that it knows by name; any integer is sent.
  const known = status as 200;
  return c.body(`<?xml version="1.0" encoding="UTF-8"?>${body}`, known, {
    'content-type': 'application/xml',
  });
}
