/** One shared secret, sent as `authorization: Bearer <token>`. */
import { createHash, timingSafeEqual } from 'node:crypto';

/** Makes a check of the header's value, whose time tells nothing about the token. */
export function bearerCheck(token: string): (authorization: string | undefined) => boolean {
  const expected = digest(token);
  return (authorization = '') => {
    const [, given = ''] = /^Bearer +(\S+) *$/i.exec(authorization) ?? [];
    // Digests have one length and say nothing about where two tokens begin to differ.
    return timingSafeEqual(digest(given), expected);
  };
}

function digest(text: string): Uint8Array {
  return createHash('sha256').update(text).digest();
}
