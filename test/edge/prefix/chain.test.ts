import fc from 'fast-check';
import { createHash, createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import type { PromptPart } from '../../../edge/prefix/chain.ts';
import {
  cacheSalt,
  canonicalBytes,
  chainOfBytes,
  prefixChain,
  prefixRoot,
} from '../../../edge/prefix/chain.ts';

const fields = { tenant: 't1', scope: '', model: 'm', revision: 'r', tokenizer: 'k' };
const root = prefixRoot('secret', fields);
const message = (content: string): PromptPart => ({
  kind: 'message',
  value: { role: 'user', content },
});
const text = (value: string): PromptPart => ({ kind: 'text', value });

const bytesOf = (length: number) => chainOfBytes(Buffer.alloc(length), root).map((k) => k.bytes);
const sha = (...parts: Buffer[]) => createHash('sha256').update(Buffer.concat(parts)).digest();
const hex = (parts: PromptPart[]) => canonicalBytes(parts).toString('hex');
const hexOfMessage = (value: unknown) => hex([{ kind: 'message', value }]);

test('chunks are 2 KiB up to 8 KiB and 8 KiB from there, and only whole ones have keys', () => {
  expect(bytesOf(2_047)).toEqual([]);
  expect(bytesOf(2_048)).toEqual([2_048]);
  expect(bytesOf(16_383)).toEqual([2_048, 4_096, 6_144, 8_192]);
  expect(bytesOf(24_576)).toEqual([2_048, 4_096, 6_144, 8_192, 16_384, 24_576]);
});

test('each key is the hash of the key before it and its chunk, 16 bytes of it', () => {
  const bytes = Buffer.alloc(4_096, 'abc');
  const first = sha(root, bytes.subarray(0, 2_048));
  const second = sha(first, bytes.subarray(2_048));
  expect(chainOfBytes(bytes, root).map(({ key }) => key)).toEqual([
    first.toString('hex').slice(0, 32),
    second.toString('hex').slice(0, 32),
  ]);
});

test('the root is an HMAC over length-prefixed fields, so that moving a letter changes it', () => {
  const written = Buffer.concat(
    ['t1', '', 'm', 'r', 'k'].map((field) =>
      Buffer.concat([Buffer.from([0, 0, 0, field.length]), Buffer.from(field)]),
    ),
  );
  expect(root).toEqual(createHmac('sha256', 'secret').update(written).digest());
  expect(cacheSalt(root)).toMatch(/^[0-9a-f]{64}$/);
  const others = [
    prefixRoot('other', fields),
    prefixRoot('secret', { ...fields, tenant: 't', scope: '1' }),
    prefixRoot('secret', { ...fields, tenant: 't1m', model: '' }),
    prefixRoot('secret', { ...fields, revision: 'rk', tokenizer: '' }),
  ].map(cacheSalt);
  expect(new Set([...others, cacheSalt(root)]).size).toBe(5);
});

test('a conversation that grows only appends: every key it had it keeps', () => {
  const anyMessage = fc.string({ maxLength: 6_000, unit: 'grapheme' }).map(message);
  const conversation = fc.array(anyMessage, { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(conversation, conversation, (before, added) => {
      const first = prefixChain(before, root);
      const later = prefixChain([...before, ...added], root);
      expect(later.slice(0, first.length)).toEqual(first);
    }),
    { numRuns: 50 },
  );
});

test('two questions about one document, each in one message with it, share the document', () => {
  const document = 'It was a dark and stormy night. '.repeat(1_000);
  const ask = (question: string) => prefixChain([message(`${document}\n\n${question}`)], root);
  const [first, second] = [ask('Who sailed?'), ask('Why, and how far, and when, and with whom?')];
  expect(first).toHaveLength(6);
  expect(second).toEqual(first);
});

test('no content can end its own part', () => {
  const forged = text('a"\nP"b');
  expect(hex([forged])).not.toBe(hex([text('a'), text('b')]));
  expect(canonicalBytes([forged]).toString().split('\n')).toHaveLength(2);
});

test('tools come first, wherever the request names them', () => {
  const tools: PromptPart = { kind: 'tools', value: [{ type: 'function' }] };
  expect(canonicalBytes([message('a'), tools])).toEqual(canonicalBytes([tools, message('a')]));
  expect(canonicalBytes([tools]).toString()).toBe('T[{"type":"function"}]\n');
});

test('the order of properties and absent ones make no difference, any other change does', () => {
  expect(hexOfMessage({ role: 'user', content: 'a', name: null })).toBe(
    hexOfMessage({ content: 'a', role: 'user', prefix: undefined }),
  );
  expect(hexOfMessage({ content: ['a', 'b'] })).not.toBe(hexOfMessage({ content: ['b', 'a'] }));
  expect(hexOfMessage({ content: 'a' })).not.toBe(hexOfMessage({ content: 'A' }));
  expect(hexOfMessage({ content: [1, null] })).not.toBe(hexOfMessage({ content: [1] }));
});

test('text cut differently into messages is a different prompt', () => {
  const spellings = [
    hex([message('ab')]),
    hex([message('a'), message('b')]),
    hex([text('ab')]),
    hex([text('a'), text('b')]),
    hex([{ kind: 'tools', value: 'ab' }]),
  ];
  expect(new Set(spellings).size).toBe(spellings.length);
});

test('no two tenants, scopes, models or revisions share a key of the same prompt', () => {
  const prompt = [message('x'.repeat(40_000))];
  const roots = [
    fields,
    { ...fields, tenant: 't2' },
    { ...fields, scope: 'user-1' },
    { ...fields, model: 'm2' },
    { ...fields, revision: 'r2' },
    { ...fields, tokenizer: 'k2' },
  ];
  const keys = roots.flatMap((named) =>
    prefixChain(prompt, prefixRoot('secret', named)).map(({ key }) => key),
  );
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys.length).toBe(roots.length * 7);
});

test('JSON nested without end is refused, not followed', () => {
  let value: unknown = 'end';
  for (let depth = 0; depth < 100_000; depth++) value = [value];
  expect(() => canonicalBytes([{ kind: 'message', value }])).toThrow(/nested deeper/);
});
