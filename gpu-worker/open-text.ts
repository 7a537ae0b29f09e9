/** Opens a checkpoint's tokenizer, its chat template and its sampling. */
import { createHash } from 'node:crypto';
import { readSamplingDefaults } from './http/request/sampling-defaults.ts';
import type { SamplingDefaults } from './http/request/sampling-defaults.ts';
import { createChatTemplate } from './tokenizer/chat-template.ts';
import type { ChatTemplate } from './tokenizer/chat-template.ts';
import { openTokenizer } from './tokenizer/tokenizer.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';
import { readTokenizerFiles } from './weights/json-files.ts';
import { openSource } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';

export interface ModelText {
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  /** SHA-256 of the tokenizer's files, hex: equal texts have equal tokens where this is equal. */
  readonly tokenizerId: string;
  readonly samplingDefaults: SamplingDefaults;
}

/** @throws CheckpointError or TokenizerError with one clear line. */
export async function openText(
  location: string,
  weights?: SourceSettings,
  /** Called often while a text is encoded. */
  pause: () => void = () => {},
): Promise<ModelText> {
  await using source = await openSource(location, weights);
  const files = await readTokenizerFiles(source);
  const tokenizer = openTokenizer(files, pause);
  const chatTemplate = createChatTemplate(files.tokenizerConfig, tokenizer);
  const hash = createHash('sha256');
  for (const file of [files.tokenizerJson, files.tokenizerConfig])
    hash.update(JSON.stringify(file));
  const samplingDefaults = readSamplingDefaults(files.generationConfig);
  return { tokenizer, chatTemplate, tokenizerId: hash.digest('hex'), samplingDefaults };
}

/** The tokenizer alone, for a thread that only decodes. @throws as `openText` does */
export async function openDecoder(location: string, weights?: SourceSettings): Promise<Tokenizer> {
  await using source = await openSource(location, weights);
  return openTokenizer(await readTokenizerFiles(source));
}
