/**
 * Checks AWS Signature Version 4 of a request, as a store does: headers only, path as it was sent.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

export interface SignedRequest {
  readonly method: string;
  /** The URL as it came, escapes and all. */
  readonly url: URL;
  readonly headers: Headers;
}

/** The access key that the request names, or null without a well-formed Authorization header. */
export function accessKeyOf(headers: Headers): string | null {
  return parse(headers)?.accessKey ?? null;
}

export function isSignedWith(request: SignedRequest, secret: string): boolean {
  const parsed = parse(request.headers);
  if (parsed === null) return false;
  const { scope, signedHeaders, signature } = parsed;
  const [date = '', region = '', service = ''] = scope.split('/');
  const query = [...request.url.searchParams]
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .toSorted()
    .join('&');
  const canonical = [
    request.method,
    request.url.pathname,
    query,
    ...signedHeaders.map((name) => `${name}:${(request.headers.get(name) ?? '').trim()}`),
    '',
    signedHeaders.join(';'),
    request.headers.get('x-amz-content-sha256'),
  ].join('\n');
  const text = [
    'AWS4-HMAC-SHA256',
    request.headers.get('x-amz-date'),
    scope,
    createHash('sha256').update(canonical).digest('hex'),
  ].join('\n');
  let key = createHmac('sha256', `AWS4${secret}`).update(date).digest();
  for (const word of [region, service, 'aws4_request']) {
    key = createHmac('sha256', key).update(word).digest();
  }
  const expected = createHmac('sha256', key).update(text).digest();
  return signature.length === expected.length && timingSafeEqual(signature, expected);
}

function parse(headers: Headers) {
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)$/.exec(
      headers.get('authorization') ?? '',
    );
  if (match === null) return null;
  const [, accessKey = '', scope = '', names = '', signature = ''] = match;
  return {
    accessKey,
    scope,
    signedHeaders: names.split(';'),
    signature: Buffer.from(signature, 'hex'),
  };
}

function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
