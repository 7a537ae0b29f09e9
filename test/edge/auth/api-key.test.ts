import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { createApiKey, readApiKey, verifyApiKey } from '../../../edge/auth/api-key.ts';

const random = { bytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)) };
const create = (tenant = 'acme', signingSecrets: readonly string[] = ['new', 'old']) =>
  createApiKey({ tenant, signingSecrets, random });

test('a key that was created verifies, and names its tenant, its id and the hash of its secret', () => {
  const { key, keyId, secretHash } = create();
  expect(key).toMatch(/^sk-sift-acme\.[\w-]{8}\.[\w-]{32}\.[\w-]{22}$/);
  expect(verifyApiKey(key, ['new', 'old'])).toEqual({ tenant: 'acme', keyId, secretHash });
  const secret = key.split('.')[2] ?? '';
  expect(secretHash).toBe(createHash('sha256').update(secret).digest('hex'));
});

test('the id of a key begins with a letter, whatever is drawn', () => {
  for (let first = 0; first < 256; first++) {
    const bytes = (count: number) => new Uint8Array(count).fill(first);
    const { keyId, key } = createApiKey({
      tenant: 'acme',
      signingSecrets: ['new'],
      random: { bytes },
    });
    expect(keyId).toMatch(/^[A-Za-z]/);
    expect(verifyApiKey(key, ['new'])?.keyId).toBe(keyId);
  }
});

test('the newest secret signs, and every secret of the list verifies', () => {
  const { key } = create('acme', ['new', 'old']);
  expect(verifyApiKey(key, ['newer', 'new'])).not.toBeNull();
  expect(verifyApiKey(key, ['old'])).toBeNull();
  expect(verifyApiKey(key, [])).toBeNull();
});

test('a key with any one character changed is none', () => {
  const { key } = create();
  const alphabet = 'abcXYZ019_-.';
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: key.length - 1 }),
      fc.constantFrom(...alphabet),
      (at, letter) => {
        fc.pre(key[at] !== letter);
        const changed = key.slice(0, at) + letter + key.slice(at + 1);
        expect(verifyApiKey(changed, ['new'])).toBeNull();
      },
    ),
  );
});

test('what is not a key is none, however long or odd it is', () => {
  const texts = ['', 'sk-sift-', 'sk-sift-a.b.c.d', `sk-sift-${'a'.repeat(100_000)}`, '🔑', '\0'];
  for (const text of texts) expect(verifyApiKey(text, ['new'])).toBeNull();
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(verifyApiKey(text, ['new'])).toBeNull();
      expect(verifyApiKey(`sk-sift-${text}`, ['new'])).toBeNull();
    }),
  );
});

test('a mac of another tenant or key does not carry over', () => {
  const [one, other] = [create('acme').key, create('acme').key];
  const mac = other.split('.').at(-1) ?? '';
  const forged = [...one.split('.').slice(0, -1), mac].join('.');
  expect(verifyApiKey(forged, ['new'])).toBeNull();
  expect(verifyApiKey(one.replace('sk-sift-acme', 'sk-sift-evil'), ['new'])).toBeNull();
});

test('a tenant id that could leave its place in a path or a key is refused', () => {
  for (const tenant of ['', '../etc', 'a.b', 'A', '-a', 'a'.repeat(64), 'a/b', 'ä']) {
    expect(() => create(tenant)).toThrow(RangeError);
  }
  expect(() => create('acme', [])).toThrow(RangeError);
});

test('a key is read from the authorization header, or from x-api-key', () => {
  expect(readApiKey(new Headers({ authorization: 'Bearer abc' }))).toBe('abc');
  expect(readApiKey(new Headers({ authorization: 'bearer  abc ' }))).toBe('abc');
  expect(readApiKey(new Headers({ 'x-api-key': 'abc' }))).toBe('abc');
  expect(readApiKey(new Headers({ authorization: 'Basic abc' }))).toBeNull();
  expect(readApiKey(new Headers({ authorization: 'Bearer a b' }))).toBeNull();
  expect(readApiKey(new Headers())).toBeNull();
});
