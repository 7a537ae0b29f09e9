/** Opens a checkpoint's tokenizer, its chat format and its sampling. */
import { createHash } from 'node:crypto';
import { chatFormatNames } from './chat-formats/chat-format.ts';
import type { ChatFormat, ChatFormatName } from './chat-formats/chat-format.ts';
import { openChatFormat } from './chat-formats/chat-formats.ts';
import { readSamplingDefaults } from './http/request/sampling-defaults.ts';
import type { SamplingDefaults } from './http/request/sampling-defaults.ts';
import { chatFormatOf } from './model/families.ts';
import { openTokenizer } from './tokenizer/tokenizer.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';
import { readConfig, readTokenizerFiles } from './weights/json-files.ts';
import { openSource } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';

export interface ModelText {
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
  /** SHA-256 of the tokenizer's files, hex: equal texts have equal tokens where this is equal. */
  readonly tokenizerId: string;
  readonly samplingDefaults: SamplingDefaults;
}

export interface TextOptions {
  readonly weights?: SourceSettings;
  /** The format to use in place of the one that the checkpoint has. */
  readonly chatFormat?: ChatFormatName | undefined;
  /** Called often while a text is encoded. */
  readonly pause?: () => void;
}

/** @throws CheckpointError or TokenizerError with one clear line. */
export async function openText(location: string, options: TextOptions = {}): Promise<ModelText> {
  await using source = await openSource(location, options.weights);
  const files = await readTokenizerFiles(source);
  const { tokenizerConfig } = files;
  const tokenizer = openTokenizer(files, options.pause);
  const chatFormat = openChatFormat({
    tokenizerConfig,
    tokenizer,
    family: familyFormat(await readConfig(source)),
    forced: options.chatFormat ?? null,
  });
  const hash = createHash('sha256');
  for (const file of [files.tokenizerJson, tokenizerConfig]) hash.update(JSON.stringify(file));
  const samplingDefaults = readSamplingDefaults(files.generationConfig);
  return { tokenizer, chatFormat, tokenizerId: hash.digest('hex'), samplingDefaults };
}

/** The format of the checkpoint's family; null where its config.json names no family of ours. */
function familyFormat(config: object): ChatFormatName | null {
  const name = 'model_type' in config ? chatFormatOf(String(config.model_type)) : null;
  return chatFormatNames.find((known) => known === name) ?? null;
}

/** The tokenizer alone, for a thread that only decodes. @throws as `openText` does */
export async function openDecoder(location: string, weights?: SourceSettings): Promise<Tokenizer> {
  await using source = await openSource(location, weights);
  return openTokenizer(await readTokenizerFiles(source));
}
