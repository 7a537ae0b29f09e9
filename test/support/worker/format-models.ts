/** A tokenizer and a chat format of each kind that checkpoints are published with. */
import { readFileSync } from 'node:fs';
import type { ChatFormat, ChatFormatName } from '../../../gpu-worker/chat-formats/chat-format.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { callMarks, dsmlMark, glmMarks } from '../../../gpu-worker/tokenizer/call-marks.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { deepseekFiles, deepseekV3Files, tinyFiles } from '../../gpu-worker/tokenizer/fixture.ts';
import type { TokenizerFixture } from '../../gpu-worker/tokenizer/fixture.ts';

export interface FormatModel {
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
}

/** V3.2's: a token for the mark of its tags, and no template. */
export const v32Files = {
  tokenizerJson: withTokens(deepseekFiles, [{ id: 128_797, content: dsmlMark, special: true }]),
  tokenizerConfig: { ...deepseekFiles.tokenizerConfig, chat_template: null },
};

const glmTokens = [
  ['[gMASK]', '<sop>', '<|system|>', '<|user|>', '<|assistant|>', '<|observation|>'],
  ['<think>', '</think>', ...Object.values(glmMarks)],
  ['<tool_response>', '</tool_response>', '<|endoftext|>'],
].flat();
const firstGlmId = 4_096;
/** The tiny model's words and template, without the tokens that calls are marked with. */
export const plainFiles: TokenizerFixture = {
  ...tinyFiles,
  tokenizerJson: {
    ...tinyFiles.tokenizerJson,
    added_tokens: tinyFiles.tokenizerJson.added_tokens.filter(
      (token) => !callMarks.has(contentOf(token)),
    ),
  },
};

const known = new Set(plainFiles.tokenizerJson.added_tokens.map(contentOf));
const added = glmTokens.filter((content) => !known.has(content));

/** GLM's tokens and a template like its own, over the tiny model's words. */
export const glmFiles = {
  tokenizerJson: withTokens(
    plainFiles,
    added.map((content, index) => ({ id: firstGlmId + index, content, special: false })),
  ),
  tokenizerConfig: {
    eos_token: '<|endoftext|>',
    chat_template: readFileSync(new URL('glm.jinja', import.meta.url), 'utf8'),
  },
  generationConfig: { eos_token_id: ['<|user|>', '<|observation|>'].map(glmId) },
};
export const glmVocabSize = firstGlmId + added.length;

const filesOf = {
  jinja: plainFiles,
  'deepseek-v32': v32Files,
  'deepseek-v31': deepseekFiles,
  'deepseek-v3': deepseekV3Files,
  glm: glmFiles,
};

const opened = new Map<ChatFormatName, FormatModel>();

/** The model of a format; opening a tokenizer takes a while, so each is opened once. */
export function formatModel(name: ChatFormatName): FormatModel {
  const files = filesOf[name];
  const model = opened.get(name) ?? openModel(files);
  opened.set(name, model);
  return model;
}

function openModel(files: Parameters<typeof openTokenizer>[0]): FormatModel {
  const tokenizer = openTokenizer(files);
  return { tokenizer, chatFormat: openChatFormat({ ...files, tokenizer }) };
}

function withTokens({ tokenizerJson }: TokenizerFixture, tokens: readonly object[]) {
  const ids = new Set(tokens.map(idOf));
  // A published token of the same id is a placeholder.
  const kept = tokenizerJson.added_tokens.filter((token) => !ids.has(idOf(token)));
  return { ...tokenizerJson, added_tokens: [...kept, ...tokens] };
}

function contentOf(token: object): string {
  return 'content' in token ? String(token.content) : '';
}

function idOf(token: object): number {
  return 'id' in token ? Number(token.id) : -1;
}

function glmId(content: string): number {
  const own = added.indexOf(content);
  if (own >= 0) return firstGlmId + own;
  const token = plainFiles.tokenizerJson.added_tokens.find((each) => contentOf(each) === content);
  return token === undefined ? -1 : idOf(token);
}
