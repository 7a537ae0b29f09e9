/**
 * A checkpoint's tokenizer: text to token ids and back. Tokens that tokenizer.json adds beside the
 * BPE vocabulary are called control tokens here, whether or not it marks them special: no text that
 * a user wrote may turn into one unless the caller asks for it.
 */
import { strict as assert } from 'node:assert';
import { Tokenizer as PublishedTokenizer } from '@huggingface/tokenizers';
import { bytesOfToken } from './byte-alphabet.ts';
import { createBpe } from './bpe.ts';
import { callMarks } from './call-marks.ts';
import { createDetokenizer } from './detokenizer.ts';
import type { Detokenizer } from './detokenizer.ts';
import { eachWords } from './word-windows.ts';
import { parseTokenizerFiles, TokenizerError } from './tokenizer-files.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';

/** Words that are encoded between two calls of `pause`. */
const wordsPerPause = 256;

/** A piece of a prompt: one control token, or text in which nothing is a control token. */
export type PromptPart =
  | { readonly kind: 'control'; readonly content: string }
  | { readonly kind: 'text'; readonly text: string };

/** A text has more tokens than it may; it was not encoded to its end. */
export class TooManyTokensError extends Error {
  override readonly name = 'TooManyTokensError';
  /** The prompt has these tokens and perhaps more. */
  readonly tokens: number;

  constructor(tokens: number) {
    super(`the text has at least ${tokens} tokens`);
    this.tokens = tokens;
  }
}

export interface EncodeOptions {
  /**
   * A TooManyTokensError is thrown as soon as it is clear that there are more; no limit unless
   * told.
   */
  readonly tokensMax?: number;
  /** Puts the begin token before the text where the model wants one; off unless told. */
  readonly addSpecialTokens?: boolean;
  /** True if the strings of control tokens become those tokens; on unless told. */
  readonly controlTokens?: boolean;
}

export interface Tokenizer {
  /** Ids are below it. A model's vocabulary may be larger, padded by ids without meaning. */
  readonly vocabSize: number;
  /** Tokens that end a text. */
  readonly endTokens: readonly number[];
  /** Control tokens by their strings. */
  readonly controlTokens: ReadonlyMap<string, number>;
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Adjacent texts are encoded as one, so that it makes no difference where a text was cut. */
  encodeParts(parts: readonly PromptPart[], options?: Pick<EncodeOptions, 'tokensMax'>): Int32Array;
  decode(tokens: Iterable<number>, options: { skipSpecial: boolean }): string;
  createDetokenizer(options: { skipSpecial: boolean }): Detokenizer;
  /** The id of a control token, or null if the tokenizer has none of that string. */
  controlToken(content: string): number | null;
  /** The bytes that a token stands for; none for an id without meaning. */
  tokenBytes(token: number): Uint8Array;
}

/** Throws a TokenizerError that names the file and what it asks for that is not supported. */
export function openTokenizer(
  files: {
    tokenizerJson: unknown;
    tokenizerConfig: unknown;
    generationConfig?: unknown;
  },
  /** Called often while a text is encoded; what it throws ends that. */
  pause: () => void = () => {},
): Tokenizer {
  const parsed = parseTokenizerFiles(files);
  const vocabulary = readVocabulary(parsed);
  const { controlTokens, tokenBytes } = vocabulary;
  const encodeText = textEncoder(parsed, pause);
  const split = controlSplitter([...controlTokens.keys()]);
  const idOf = (content: string): number => {
    const id = controlTokens.get(content);
    if (id === undefined) throw new TokenizerError(`the token ${content} is not in tokenizer.json`);
    return id;
  };
  const before = parsed.before.map(idOf);
  const after = parsed.after.map(idOf);

  const tokenizer: Tokenizer = {
    vocabSize: vocabulary.size,
    endTokens: [...new Set([...parsed.endTokens.map(idOf), ...parsed.endTokenIds])],
    controlTokens,
    encode(text, options = {}) {
      const { addSpecialTokens = false, controlTokens: recognized = true } = options;
      const parts = recognized ? split(text) : [{ kind: 'text' as const, text }];
      const ids = tokenizer.encodeParts(parts, options);
      return Int32Array.from(addSpecialTokens ? [...before, ...ids, ...after] : ids);
    },
    encodeParts(parts, { tokensMax = Infinity } = {}) {
      // No token is longer than the longest: such a text need not be encoded to be refused.
      const tokensMin = Math.ceil(bytesOf(parts) / vocabulary.tokenBytesMax);
      if (tokensMin > tokensMax) throw new TooManyTokensError(tokensMin);
      const ids: number[] = [];
      let text = '';
      for (const part of parts) {
        if (part.kind === 'text') text += part.text;
        else {
          encodeText(text, { ids, tokensMax });
          ids.push(idOf(part.content));
          text = '';
        }
      }
      encodeText(text, { ids, tokensMax });
      return Int32Array.from(ids);
    },
    decode(tokens, options) {
      const detokenizer = tokenizer.createDetokenizer(options);
      let text = '';
      for (const token of tokens) text += detokenizer.push(token);
      return text + detokenizer.flush();
    },
    createDetokenizer({ skipSpecial }) {
      return createDetokenizer({
        tokenBytes,
        skips: (token) => skipSpecial && vocabulary.special.has(token),
      });
    },
    controlToken: (content) => controlTokens.get(content) ?? null,
    tokenBytes,
  };
  return tokenizer;
}

interface Vocabulary {
  readonly size: number;
  /** Bytes of the longest token. */
  readonly tokenBytesMax: number;
  readonly controlTokens: ReadonlyMap<string, number>;
  readonly special: ReadonlySet<number>;
  tokenBytes(token: number): Uint8Array;
}

function readVocabulary(files: TokenizerFiles): Vocabulary {
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(files.vocab)) tokens[id] = token;
  const size = files.addedTokens.reduce((most, { id }) => Math.max(most, id + 1), tokens.length);
  const controlTokens = new Map(files.addedTokens.map(({ content, id }) => [content, id]));
  const controlContents = new Map(files.addedTokens.map(({ content, id }) => [id, content]));
  // A character of the vocabulary is a byte.
  const tokenBytesMax = files.addedTokens.reduce(
    (most, { content }) => Math.max(most, Buffer.byteLength(content)),
    tokens.reduce((most, token) => Math.max(most, token.length), 1),
  );
  return {
    size,
    tokenBytesMax,
    controlTokens,
    special: new Set(
      files.addedTokens
        .filter(({ special, content }) => special && !callMarks.has(content))
        .map(({ id }) => id),
    ),
    tokenBytes(token) {
      assert(Number.isInteger(token) && token >= 0, `${token} is not a token id`);
      const content = controlContents.get(token);
      return content === undefined ? bytesOfToken(tokens[token] ?? '') : Buffer.from(content);
    },
  };
}

function bytesOf(parts: readonly PromptPart[]): number {
  return parts.reduce(
    (sum, part) => sum + Buffer.byteLength(part.kind === 'text' ? part.text : part.content),
    0,
  );
}

interface Encoding {
  /** The ids of the text are appended to them. */
  readonly ids: number[];
  readonly tokensMax: number;
}

/** Encodes text in which nothing is a control token. */
function textEncoder(
  files: TokenizerFiles,
  pause: () => void,
): (text: string, encoding: Encoding) => void {
  const preTokenizer = openPreTokenizer(files);
  const bpe = createBpe(files, pause);
  return (text, { ids, tokensMax }) => {
    const start = ids.length;
    let untilPause = wordsPerPause;
    const take = (words: readonly string[]): void => {
      for (const word of words) {
        bpe.encode(word, ids);
        if (--untilPause > 0) continue;
        untilPause = wordsPerPause;
        if (ids.length > tokensMax) throw new TooManyTokensError(ids.length);
        pause();
      }
    };
    const restart = (): void => void (ids.length = start);
    eachWords(text, (part) => preTokenizer.pre_tokenize(part), { take, restart });
  };
}

type PreTokenizer = NonNullable<PublishedTokenizer['pre_tokenizer']>;

/** @throws TokenizerError where the library does not take it. */
function openPreTokenizer(files: TokenizerFiles): PreTokenizer {
  let preTokenizer: PublishedTokenizer['pre_tokenizer'];
  try {
    ({ pre_tokenizer: preTokenizer } = new PublishedTokenizer(
      {
        model: { type: 'BPE', vocab: {}, merges: [] },
        pre_tokenizer: files.preTokenizer,
        added_tokens: [],
        normalizer: null,
        post_processor: null,
        decoder: null,
      },
      {},
    ));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(`tokenizer.json: pre_tokenizer: ${reason}`, { cause });
  }
  assert(preTokenizer !== null, 'the pre-tokenizer was checked to be there');
  return preTokenizer;
}

/** Splits at the strings of control tokens: the leftmost first, of those the longest. */
function controlSplitter(contents: readonly string[]): (text: string) => PromptPart[] {
  const pattern = controlPattern(contents);
  return (text) => {
    const parts: PromptPart[] = [];
    let end = 0;
    for (const match of text.matchAll(pattern)) {
      const [content] = match;
      parts.push(
        { kind: 'text', text: text.slice(end, match.index) },
        { kind: 'control', content },
      );
      end = match.index + content.length;
    }
    parts.push({ kind: 'text', text: text.slice(end) });
    return parts;
  };
}

/** Matches the string of any control token; of several at one place the longest. */
export function controlPattern(contents: Iterable<string>): RegExp {
  const alternatives = [...contents]
    .toSorted((a, b) => b.length - a.length)
    .map((content) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
  // If there are no control tokens, nothing matches.
  return new RegExp(alternatives.join('|') || '(?!)', 'g');
}
