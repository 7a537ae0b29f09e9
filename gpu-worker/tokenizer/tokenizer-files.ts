/**
 * Reads tokenizer.json, tokenizer_config.json and generation_config.json. Only byte-level BPE is
 * taken, without a normalizer: anything else is refused rather than tokenised almost right.
 */
import { z } from 'zod';
import { UserError } from '../../infra/user-error.ts';

/** The tokenizer's files ask for something that is not supported, or are malformed. */
export class TokenizerError extends UserError {
  override readonly name = 'TokenizerError';
}

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out of text for people. */
  readonly special: boolean;
}

export interface TokenizerFiles {
  /** The part of tokenizer.json that the library pre-tokenises by. */
  readonly preTokenizer: Component;
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly unknown[];
  readonly addedTokens: readonly AddedToken[];
  /** Put around a text that is encoded with special tokens. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly endTokens: readonly string[];
  readonly endTokenIds: readonly number[];
}

const component = z.looseObject({ type: z.string() });
type Component = z.infer<typeof component>;

/** A hundred times the largest published vocabulary; tables have a place for each id. */
const tokenIdMax = 2 ** 24;
const tokenId = z.int().min(0).max(tokenIdMax);

const tokenizerSchema = z.looseObject({
  model: z.looseObject({
    type: z.literal('BPE', { error: 'only BPE is supported' }),
    vocab: z.custom<Record<string, number>>(
      isVocab,
      `not a map of tokens to ids of at most ${tokenIdMax}`,
    ),
    merges: z.array(z.unknown()),
    dropout: z.literal(0, { error: 'is not supported' }).nullish(),
    byte_fallback: z.literal(false, { error: 'is not supported' }).nullish(),
    continuing_subword_prefix: z.literal('', { error: 'is not supported' }).nullish(),
    end_of_word_suffix: z.literal('', { error: 'is not supported' }).nullish(),
    ignore_merges: z.literal(false, { error: 'is not supported' }).nullish(),
  }),
  added_tokens: z
    .array(
      z.object({
        id: tokenId,
        content: z.string().min(1),
        special: z.boolean().default(false),
        single_word: z.literal(false, { error: 'is not supported' }).nullish(),
        lstrip: z.literal(false, { error: 'is not supported' }).nullish(),
        rstrip: z.literal(false, { error: 'is not supported' }).nullish(),
      }),
    )
    .default([]),
  normalizer: component.nullish(),
  pre_tokenizer: component.nullish(),
  post_processor: component.nullish(),
  decoder: component.nullish(),
});

/** A token in tokenizer_config.json: its string, or an object that holds it. */
export const tokenText = z
  .union([z.string(), z.object({ content: z.string() }).transform((token) => token.content)])
  .nullish();

const configSchema = z.looseObject({
  bos_token: tokenText,
  eos_token: tokenText,
  add_bos_token: z.boolean().nullish(),
  add_eos_token: z.boolean().nullish(),
});

const generationSchema = z
  .looseObject({ eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish() })
  .nullish();

/** Throws a TokenizerError that names the file and the key. */
export function parseTokenizerFiles(files: {
  tokenizerJson: unknown;
  tokenizerConfig: unknown;
  generationConfig?: unknown;
}): TokenizerFiles {
  const json = parseFile('tokenizer.json', tokenizerSchema, files.tokenizerJson);
  const config = parseFile('tokenizer_config.json', configSchema, files.tokenizerConfig);
  const generation = parseFile('generation_config.json', generationSchema, files.generationConfig);

  requireByteLevel('decoder', json.decoder);
  const preTokenizer = requireByteLevel('pre_tokenizer', json.pre_tokenizer);
  if (members(json.normalizer).length > 0) {
    throw new TokenizerError('tokenizer.json: normalizer is not supported');
  }
  const frame = frameTokens(config, json.post_processor);
  const endTokenIds = generation?.eos_token_id ?? [];
  return {
    preTokenizer,
    vocab: json.model.vocab,
    merges: json.model.merges,
    addedTokens: json.added_tokens,
    before: frame.before,
    after: frame.after,
    endTokens: typeof config.eos_token === 'string' ? [config.eos_token] : [],
    endTokenIds: typeof endTokenIds === 'number' ? [endTokenIds] : endTokenIds,
  };
}

/** tokenizer_config.json decides about the begin and end tokens where it speaks of them. */
function frameTokens(
  config: z.infer<typeof configSchema>,
  postProcessor: Component | null | undefined,
): { before: string[]; after: string[] } {
  const template = members(postProcessor).find((part) => part.type === 'TemplateProcessing');
  const { before, after } = templateTokens(template);
  return {
    before: framing('bos_token', config.add_bos_token, config.bos_token) ?? before,
    after: framing('eos_token', config.add_eos_token, config.eos_token) ?? after,
  };
}

function framing(
  key: string,
  add: boolean | null | undefined,
  token: string | null | undefined,
): string[] | null {
  if (typeof add !== 'boolean') return null;
  if (!add) return [];
  if (typeof token === 'string') return [token];
  throw new TokenizerError(`tokenizer_config.json: add_${key} is set, but there is no ${key}`);
}

const templatePieces = z.array(
  z.union([
    z.object({ SpecialToken: z.object({ id: z.string() }) }),
    z.object({ Sequence: z.object({ id: z.string() }) }),
  ]),
);

/** The special tokens that a TemplateProcessing puts before and after a single text. */
function templateTokens(template: Component | undefined): { before: string[]; after: string[] } {
  const before: string[] = [];
  const after: string[] = [];
  if (template === undefined) return { before, after };
  let side = before;
  for (const piece of parseFile(
    'tokenizer.json: post_processor',
    templatePieces,
    template.single,
  )) {
    if ('SpecialToken' in piece) side.push(piece.SpecialToken.id);
    else side = after;
  }
  return { before, after };
}

/** A decoder must be that alone; a pre-tokenizer may split in other ways before. */
function requireByteLevel(
  key: 'decoder' | 'pre_tokenizer',
  part: Component | null | undefined,
): Component {
  const types = members(part).map((member) => member.type);
  const fits = types.at(-1) === 'ByteLevel' && (key === 'pre_tokenizer' || types.length === 1);
  if (part !== null && part !== undefined && fits) return part;
  throw new TokenizerError(
    `tokenizer.json: ${key} is ${types.join(', ') || 'missing'}; only ByteLevel is supported`,
  );
}

/** The parts of a Sequence, or the one part that there is. */
function members(part: Component | null | undefined): Component[] {
  if (part === null || part === undefined) return [];
  if (part.type !== 'Sequence') return [part];
  const list = part.pretokenizers ?? part.decoders ?? part.normalizers ?? part.processors;
  return parseFile(`tokenizer.json: Sequence`, z.array(component), list).flatMap(members);
}

/** Throws a TokenizerError that names the file and the key. */
export function parseFile<T>(file: string, schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new TokenizerError(`${file}: ${issue?.path.join('.')}: ${issue?.message}`);
}

/** Checked by hand: a schema for each of 128,000 entries would take longer than all the rest. */
function isVocab(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((id) => Number.isInteger(id) && id >= 0 && id <= tokenIdMax);
}
