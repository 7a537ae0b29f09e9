/**
 * The Ed25519 keys of receipts. The setting lists them newest first, each as the 32 bytes of its
 * seed in base64url: the first signs, and all are published, so that old receipts can be verified.
 * `public:` and a public key keep one published whose seed is gone. WebCrypto does the work,
 * because Node and workerd both have it.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { toJcs } from './jcs.ts';
import type { Receipt, SignedReceipt } from './receipt.ts';

const algorithm = 'Ed25519';
/** RFC 8410: what stands before the seed in the PKCS #8 form of a private key. */
const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const publicPrefix = 'public:';

/** RFC 8037. */
export const receiptKeySchema = z.object({
  kty: z.literal('OKP'),
  crv: z.literal(algorithm),
  x: z.base64url().length(43).describe('the public key'),
  kid: z.string().describe('the thumbprint of the key, RFC 7638'),
  alg: z.literal('EdDSA'),
  use: z.literal('sig'),
});
export type ReceiptKey = z.infer<typeof receiptKeySchema>;

/** A JWK set, RFC 7517, newest key first. */
export const receiptKeysSchema = z.object({ keys: z.array(receiptKeySchema).max(64) });

/** Lists the public keys, newest first. */
export async function publishedKeys(texts: readonly string[]): Promise<ReceiptKey[]> {
  return await Promise.all(texts.map(async (text) => toPublished(await publicKeyOf(text))));
}

/** @param seed the text of the newest key. */
export async function signReceipt(seed: string, receipt: Receipt): Promise<SignedReceipt> {
  const key = await privateKeyOf(seed);
  const { kid } = toPublished(await publicKeyOf(seed));
  const value = await crypto.subtle.sign(algorithm, key, signedBytes(receipt));
  return {
    receipt,
    signature: {
      algorithm,
      form: 'RFC 8785',
      key_id: kid,
      value: Buffer.from(value).toString('base64url'),
    },
  };
}

export async function isSignedBy(
  { x }: ReceiptKey,
  { receipt, signature }: SignedReceipt,
): Promise<boolean> {
  const jwk = { kty: 'OKP', crv: algorithm, x };
  const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['verify']);
  const value = Buffer.from(signature.value, 'base64url');
  // Decoders drop the padding of the last character: of several spellings one is the signature.
  if (value.toString('base64url') !== signature.value) return false;
  return await crypto.subtle.verify(algorithm, key, value, signedBytes(receipt));
}

function signedBytes(receipt: Receipt): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(toJcs(receipt));
}

function privateKeyOf(seed: string) {
  const pkcs8 = Uint8Array.from([...pkcs8Prefix, ...Buffer.from(seed, 'base64url')]);
  return crypto.subtle.importKey('pkcs8', pkcs8, algorithm, true, ['sign']);
}

async function publicKeyOf(text: string): Promise<string> {
  if (text.startsWith(publicPrefix)) return text.slice(publicPrefix.length);
  const { x } = await crypto.subtle.exportKey('jwk', await privateKeyOf(text));
  return z.string().parse(x);
}

function toPublished(x: string): ReceiptKey {
  const named = toJcs({ crv: algorithm, kty: 'OKP', x });
  const kid = createHash('sha256').update(named).digest('base64url');
  return { kty: 'OKP', crv: algorithm, x, kid, alg: 'EdDSA', use: 'sig' };
}
