/**
 * The chain of keys of a prompt (docs/design.md#prefix-chain): canonical bytes that only grow as a
 * conversation grows, cut into chunks, each key the hash of the key before it and its chunk. Only
 * whole chunks have keys. The root names the tenant under a secret, so no two tenants' keys ever
 * meet.
 */
import { createHash, createHmac } from 'node:crypto';
import type { PrefixKey } from '../tenant/admission-contract.ts';

const smallChunkBytes = 2_048;
const smallChunks = 4;
const largeChunkBytes = 8_192;
const storedKeyBytes = 16;
/** Far deeper than a JSON body of any client; keeps the recursion off the end of the stack. */
const nestingMax = 256;

export interface PrefixRoot {
  readonly tenant: string;
  /** Sharing stays within it: '' for the whole tenant, or an end user's id. */
  readonly scope: string;
  readonly model: string;
  readonly revision: string;
  readonly tokenizer: string;
}

/** A part of what the model reads, in the order of its prompt. Values are parsed JSON. */
export type PromptPart =
  | { readonly kind: 'tools'; readonly value: unknown }
  | { readonly kind: 'message'; readonly value: unknown }
  | { readonly kind: 'text'; readonly value: string };

/**
 * K0, 32 bytes. Each field is preceded by its length, so that no two roots spell the same bytes.
 */
export function prefixRoot(cacheSecret: string, root: PrefixRoot): Buffer {
  const hmac = createHmac('sha256', cacheSecret);
  for (const field of [root.tenant, root.scope, root.model, root.revision, root.tokenizer]) {
    const bytes = Buffer.from(field, 'utf8');
    hmac.update(lengthOf(bytes)).update(bytes);
  }
  return hmac.digest();
}

/** The salt by which the worker keeps its blocks apart. */
export function cacheSalt(root: Buffer): string {
  return root.toString('hex');
}

/**
 * The keys of every whole chunk of the prompt, shallowest first. Throws on nesting beyond 256
 * levels.
 */
export function prefixChain(parts: readonly PromptPart[], root: Buffer): PrefixKey[] {
  return chainOfBytes(canonicalBytes(parts), root);
}

/**
 * Tools first, then each message as its own part: `kind, JSON, line feed`. The JSON itself holds no
 * line feed, so no two prompts spell the same bytes; and as no length comes first, two messages
 * that begin alike, such as questions about one document, have the same bytes for as long as they
 * are alike.
 */
export function canonicalBytes(parts: readonly PromptPart[]): Buffer {
  const tools = parts.filter((part) => part.kind === 'tools');
  const rest = parts.filter((part) => part.kind !== 'tools');
  const pieces = [...tools, ...rest].map(
    (part) => `${partTag[part.kind]}${canonicalJson(part.value, 0)}\n`,
  );
  return Buffer.from(pieces.join(''), 'utf8');
}

export function chainOfBytes(bytes: Uint8Array, root: Uint8Array): PrefixKey[] {
  return extendChain(emptyChain(root), bytes).keys;
}

/** A chain as far as it goes, and what it takes to go on from there. */
export interface Chain {
  readonly keys: PrefixKey[];
  /** The last of them in full, or the root. */
  readonly lastKey: Uint8Array;
  /** The bytes after it, too few for a key. */
  readonly rest: Uint8Array;
}

export function emptyChain(root: Uint8Array): Chain {
  return { keys: [], lastKey: root, rest: new Uint8Array() };
}

export function extendChain({ keys: begun, lastKey, rest }: Chain, more: Uint8Array): Chain {
  const bytes = rest.length === 0 ? more : Buffer.concat([rest, more]);
  const keys = [...begun];
  const before = keys.at(-1)?.bytes ?? 0;
  let key = lastKey;
  let start = 0;
  for (;;) {
    const end = start + (keys.length < smallChunks ? smallChunkBytes : largeChunkBytes);
    // A copy, because a part of the prompt's bytes would keep all of them.
    if (end > bytes.length)
      return { keys, lastKey: key, rest: Uint8Array.from(bytes.subarray(start)) };
    const digest = createHash('sha256').update(key).update(bytes.subarray(start, end)).digest();
    keys.push({ key: digest.toString('hex', 0, storedKeyBytes), bytes: before + end });
    key = digest;
    start = end;
  }
}

const partTag = { tools: 'T', message: 'M', text: 'P' } as const;

/** Object keys sorted; properties that are null or undefined are absent, as the protocol has it. */
export function canonicalJson(value: unknown, depth: number): string {
  if (depth > nestingMax) throw new RangeError(`JSON nested deeper than ${nestingMax} levels`);
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
  }
  if (value === null || typeof value !== 'object') return JSON.stringify(value ?? null);
  const properties = Object.entries(value)
    .filter(([, property]) => property !== null && property !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, property]) => `${JSON.stringify(name)}:${canonicalJson(property, depth + 1)}`);
  return `{${properties.join(',')}}`;
}

function lengthOf(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return length;
}
