/**
 * The most tokens that a prompt can have, for the hold: no token is less than a byte, and a prompt
 * is what the request says, written out by a chat template that the edge does not know. Templates
 * differ in how they write JSON (indented or not, in ASCII or not) and in the marks around turns,
 * tools and calls.
 */
import { z } from 'zod';
import type { PromptPart } from '../prefix/chain.ts';
import type { InferenceRequest } from '../dialects/inference-request.ts';

/** The chat format's first and last marks, and a system prompt of its own. */
const formatTokensMax = 1_024;
/** Marks around a turn or a prompt, beyond what its JSON already counts for. */
const turnTokensMax = 32;
/** The sentences of a chat format about tools in general. */
const toolFormatTokensMax = 8_192;
/**
 * Characters around a tool: its heading, and an empty description and parameters where it has none.
 */
const toolTokensMax = 256;
/** Marks around a call. */
const callTokensMax = 128;
/** DeepSeek-V3.2's format writes each argument of a call as an element with its name and type. */
const argumentTokensMax = 96;
/** The widest that templates indent JSON by. */
const indentBytes = 4;
/** A value nested deeper has no bound of its own: the context is its bound. */
const nestingMax = 256;

/** @param canonicalBytes of all parts, once. */
export function promptBound(
  request: Pick<InferenceRequest, 'promptParts' | 'promptTokens' | 'prompts' | 'suffix'>,
  canonicalBytes: number,
): number {
  const { promptParts, promptTokens, prompts, suffix } = request;
  const suffixes = prompts * Buffer.byteLength(suffix ?? '');
  const written = canonicalBytes + sum(promptParts, partTokens);
  const isChat = promptParts.some(({ kind }) => kind !== 'text');
  const bound = promptTokens ?? written + (isChat ? formatTokensMax : 0);
  return bound + suffixes;
}

/** Bounds what a template may write of a part beyond its canonical bytes. */
function partTokens({ kind, value }: PromptPart): number {
  if (kind === 'text') return turnTokensMax;
  if (kind === 'tools') {
    const tools = Array.isArray(value) ? value.length : 1;
    return toolFormatTokensMax + tools * toolTokensMax + jsonBytesMax(value);
  }
  return turnTokensMax + callsTokens(value) + schemaTokens(value);
}

const callsSchema = z.looseObject({
  tool_calls: z.array(
    z.looseObject({ function: z.looseObject({ name: z.string(), arguments: z.string() }) }),
  ),
});

function callsTokens(message: unknown): number {
  if (!has(message, 'tool_calls')) return 0;
  const calls = callsSchema.safeParse(message).data?.tool_calls ?? [];
  return toolFormatTokensMax + sum(calls, (call) => callTokens(call.function));
}

/** Templates get the arguments as text or as what the text says. */
function callTokens(call: { readonly name: string; readonly arguments: string }): number {
  const given = parsed(call.arguments);
  const count = typeof given === 'object' && given !== null ? Object.keys(given).length : 0;
  return (
    callTokensMax +
    count * argumentTokensMax +
    Math.max(jsonBytesMax(given), jsonBytesMax(call.arguments)) +
    Buffer.byteLength(call.name)
  );
}

/** A response format stands among the messages; some chat formats write its schema out. */
function schemaTokens(format: unknown): number {
  return has(format, 'type') && !has(format, 'role') ? formatTokensMax + jsonBytesMax(format) : 0;
}

function has(value: unknown, name: string): boolean {
  return typeof value === 'object' && value !== null && name in value;
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return json;
  }
}

/** JSON as templates write it at its longest: indented, and everything beyond ASCII escaped. */
export function jsonBytesMax(value: unknown, depth = 0): number {
  if (depth > nestingMax) return Infinity;
  if (typeof value !== 'object' || value === null) return escapedBytes(value);
  const line = (bytes: number): number => 2 + indentBytes * (depth + 1) + bytes;
  const items = Array.isArray(value)
    ? sum(value, (item) => line(jsonBytesMax(item, depth + 1)))
    : sum(Object.entries(value), ([name, item]) =>
        line(escapedBytes(name) + 2 + jsonBytesMax(item, depth + 1)),
      );
  return items + 3 + indentBytes * depth;
}

/**
 * A character beyond ASCII takes six bytes as an escape, `\u00e9`, and so do those of HTML in
 * Jinja's own filter.
 */
function escapedBytes(value: unknown): number {
  const json = JSON.stringify(value) ?? 'null';
  return json.length + 5 * json.replace(/[ -%(-;=?-~]/g, '').length;
}

function sum<T>(all: readonly T[], bytesOf: (each: T) => number): number {
  return all.reduce((total, each) => total + bytesOf(each), 0);
}
