/**
 * API keys that prove themselves: `sk-sift-<tenant>.<keyId>.<secret>.<mac>`. The mac is the first
 * 16 bytes of an HMAC-SHA-256 over the three parts, so that a forged key is known for one before
 * any storage is touched. Whether a true key is still valid is the tenant's to say.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { VerifiedKey } from '../tenant/key-contract.ts';

const prefix = 'sk-sift-';
const secretBytes = 24;
const keyIdBytes = 6;
const macBytes = 16;
/** A longer text is no key and is not even hashed. */
const keyCharactersMax = 256;

/** Tenant ids are names of files and of Durable Objects. */
export const tenantIdPattern = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const keyPattern =
  /^sk-sift-([a-z0-9][a-z0-9_-]{0,62})\.([A-Za-z0-9_-]{1,32})\.([A-Za-z0-9_-]{16,64})\.([A-Za-z0-9_-]{22})$/;

export interface NewApiKey {
  /** Shown once and stored nowhere. */
  readonly key: string;
  readonly keyId: string;
  /** SHA-256 of the secret, hex: what the tenant stores. */
  readonly secretHash: string;
}

/** @param signingSecrets newest first; the newest signs. @throws RangeError for a bad tenant id. */
export function createApiKey(options: {
  readonly tenant: string;
  readonly signingSecrets: readonly string[];
  readonly random: { bytes(count: number): Uint8Array };
}): NewApiKey {
  const { tenant, random } = options;
  const [newest] = options.signingSecrets;
  if (newest === undefined) throw new RangeError('there is no secret to sign keys with');
  if (!tenantIdPattern.test(tenant)) throw new RangeError('not a tenant id');
  const keyId = newKeyId(random.bytes(keyIdBytes));
  const secret = base64url(random.bytes(secretBytes));
  const signed = `${tenant}.${keyId}.${secret}`;
  const key = `${prefix}${signed}.${base64url(macOf(signed, newest))}`;
  return { key, keyId, secretHash: hashSecret(secret) };
}

/**
 * `null` for anything that none of the secrets signed. Takes as long for a near miss as for a far
 * one.
 */
export function verifyApiKey(key: string, signingSecrets: readonly string[]): VerifiedKey | null {
  if (key.length > keyCharactersMax) return null;
  const [, tenant, keyId, secret, mac] = keyPattern.exec(key) ?? [];
  if (!tenant || !keyId || !secret || !mac) return null;
  const given = Buffer.from(mac, 'base64url');
  // The last character carries 4 bits of padding: of several spellings only the canonical is a key.
  if (base64url(given) !== mac) return null;
  const signed = `${tenant}.${keyId}.${secret}`;
  const matches = signingSecrets.filter((each) => timingSafeEqual(given, macOf(signed, each)));
  return matches.length === 0 ? null : { tenant, keyId, secretHash: hashSecret(secret) };
}

/**
 * The key of a request: `Authorization: Bearer`, or Anthropic's `x-api-key`; `null` without one.
 */
export function readApiKey(headers: Headers): string | null {
  const [, bearer] = /^Bearer +(\S+) *$/i.exec(headers.get('authorization') ?? '') ?? [];
  return bearer ?? headers.get('x-api-key');
}

/** Begins with a letter: a command line would take an id that begins with a dash for an option. */
function newKeyId(bytes: Uint8Array): string {
  const [first = 0, ...others] = bytes;
  return base64url(Uint8Array.of(first & 0x7f, ...others));
}

function macOf(signed: string, secret: string): Uint8Array {
  return createHmac('sha256', secret).update(signed).digest().subarray(0, macBytes);
}

function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}
