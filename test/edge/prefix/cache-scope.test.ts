/**
 * The cache scopes that requests of any protocol can name, over texts chosen to run into each
 * other.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseMessagesRequest } from '../../../edge/dialects/anthropic/requests.ts';
import { parseChatRequest, parseTextRequest } from '../../../edge/dialects/openai/requests.ts';
import { prefixRoot } from '../../../edge/prefix/chain.ts';

const model = 'm';
const messages = [{ role: 'user', content: 'Hi.' }];

/** Characters that encodings separate with, and lengths that two texts can share. */
const piece = fc.constantFrom('', 'a', '|', ',', '"', '\\', '\u0000', ':', '[', ']', '1', 'user');
const salt = fc.array(piece, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('') || 'x');
const userId = fc.stringMatching(/^[A-Za-z0-9_-]{1,4}$/);
const named = fc.record({ user: fc.option(userId), salt: fc.option(salt) });
type Named = typeof named extends fc.Arbitrary<infer T> ? T : never;

function scopes({ user, salt: cacheSalt }: Named): string[] {
  const more = {
    ...(user !== null && { user_id: user }),
    ...(cacheSalt !== null && { cache_salt: cacheSalt }),
  };
  return [
    parseChatRequest({ model, messages, ...more }).cacheScope,
    parseTextRequest({ model, prompt: 'Hi.', ...more }).cacheScope,
  ];
}

test('two requests have one scope if and only if they name the same user and salt', () => {
  fc.assert(
    fc.property(named, named, (one, other) => {
      const isSame = one.user === other.user && one.salt === other.salt;
      for (const a of scopes(one)) for (const b of scopes(other)) expect(a === b).toBe(isSame);
    }),
    { numRuns: 2_000 },
  );
});

test('no metadata of a Messages request names a scope', () => {
  fc.assert(
    fc.property(named, salt, (one, text) => {
      const { cacheScope } = parseMessagesRequest({
        model,
        max_tokens: 1,
        messages,
        metadata: { user_id: text },
      });
      const isUnnamed = one.user === null && one.salt === null;
      for (const scope of scopes(one)) expect(scope === cacheScope).toBe(isUnnamed);
    }),
  );
});

test('two prefix roots are equal only where every field of theirs is', () => {
  const fields = fc.record({
    tenant: salt,
    scope: salt,
    model: salt,
    revision: salt,
    tokenizer: salt,
  });
  fc.assert(
    fc.property(fields, fields, (one, other) => {
      const isSame = JSON.stringify(one) === JSON.stringify(other);
      expect(prefixRoot('s', one).equals(prefixRoot('s', other))).toBe(isSame);
    }),
    { numRuns: 2_000 },
  );
});
