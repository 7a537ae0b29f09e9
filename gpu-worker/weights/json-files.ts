/** The JSON files of a checkpoint. What is in them is for their readers to check. */
import { CheckpointError, fileBytes } from './source.ts';
import type { WeightSource } from './source.ts';

/** Far above any published file; the largest, a tokenizer.json of 128,000 tokens, has 8 MB. */
const jsonBytesMax = 256 * 2 ** 20;
/** Far more than any published file nests; what walks these values does so by recursion. */
const nestingMax = 64;

export interface TokenizerFiles {
  readonly tokenizerJson: unknown;
  /**
   * The file, with the text of chat_template.jinja as its `chat_template`, where the checkpoint has
   * one.
   */
  readonly tokenizerConfig: unknown;
  /** null where the checkpoint has no generation_config.json. */
  readonly generationConfig: unknown;
}

/**
 * The parsed config.json. Rejects with a CheckpointError that names the file, as all of these do.
 */
export function readConfig(source: WeightSource): Promise<object> {
  return readJson(source, 'config.json');
}

/**
 * Reads the files that a tokenizer is opened with. Scoring token ids needs none of it, so it may be
 * absent then.
 */
export async function readTokenizerFiles(source: WeightSource): Promise<TokenizerFiles> {
  const hasGenerationConfig = fileBytes(source, 'generation_config.json') !== null;
  return {
    tokenizerJson: await readJson(source, 'tokenizer.json'),
    tokenizerConfig: await readTokenizerConfig(source),
    generationConfig: hasGenerationConfig ? await readJson(source, 'generation_config.json') : null,
  };
}

async function readTokenizerConfig(source: WeightSource): Promise<unknown> {
  const config = await readJson(source, 'tokenizer_config.json');
  if (fileBytes(source, 'chat_template.jinja') === null) return config;
  const template = utf8(
    source,
    'chat_template.jinja',
    await readAll(source, 'chat_template.jinja'),
  );
  return Object.assign({}, config, { chat_template: template });
}

/** The parsed content of a JSON object file. */
export async function readJson(source: WeightSource, name: string): Promise<object> {
  return parseJsonObject(source, name, await readAll(source, name));
}

/** `what` names the bytes in messages: a file, or a part of one. */
export function parseJsonObject(source: WeightSource, what: string, bytes: Uint8Array): object {
  const text = utf8(source, what, bytes);
  if (nestsBeyond(text, nestingMax)) {
    throw new CheckpointError(`${source.location}: ${what} nests more than ${nestingMax} levels`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(`${source.location}: ${what} is not valid JSON`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new CheckpointError(`${source.location}: ${what} is not a JSON object`);
  }
  const key = duplicateKey(text);
  if (key !== null) {
    throw new CheckpointError(`${source.location}: ${what} holds the key ${key} twice`);
  }
  return value;
}

/** The whole file. */
export async function readAll(source: WeightSource, name: string): Promise<Uint8Array> {
  const size = fileBytes(source, name);
  if (size === null) throw new CheckpointError(`${source.location}: ${name} is missing`);
  if (size > jsonBytesMax) {
    throw new CheckpointError(
      `${source.location}: ${name} has ${size} bytes; at most ${jsonBytesMax} are read`,
    );
  }
  const bytes = new Uint8Array(size);
  await source.read(name, 0, bytes);
  return bytes;
}

function utf8(source: WeightSource, what: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CheckpointError(`${source.location}: ${what} is not valid UTF-8`, { cause });
  }
}

/**
 * Tells whether brackets outside of strings nest deeper than `levels`; the text need not be valid
 * JSON.
 */
function nestsBeyond(text: string, levels: number): boolean {
  let depth = 0;
  let isString = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (isString) {
      if (character === '\\') at++;
      else if (character === '"') isString = false;
    } else if (character === '"') isString = true;
    else if (character === '{' || character === '[') depth++;
    else if (character === '}' || character === ']') depth--;
    if (depth > levels) return true;
  }
  return false;
}

/**
 * The first key that an object of this valid JSON text holds twice. JSON.parse keeps the last of
 * them in silence, which would let two tensors share a name.
 */
function duplicateKey(text: string): string | null {
  const open: Set<string>[] = [];
  for (const [token, colon] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|[{}]/g)) {
    if (token === '{') open.push(new Set());
    else if (token === '}') open.pop();
    else if (colon !== undefined) {
      // Escapes can spell one key in two ways, so the parsed keys are compared.
      const key = String(JSON.parse(token.slice(0, -colon.length)));
      const keys = open.at(-1);
      if (keys?.has(key) === true) return key;
      keys?.add(key);
    }
  }
  return null;
}
