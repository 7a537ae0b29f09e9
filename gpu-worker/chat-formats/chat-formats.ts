/**
 * The chat formats by name, and which of them a checkpoint has: a template of its own says most; a
 * checkpoint without one may be of a family whose format is a program.
 */
import { createChatTemplate, templateText } from '../tokenizer/chat-template.ts';
import type { ChatMessage, ChatRequest, RenderedChat } from '../tokenizer/chat-template.ts';
import { dsmlMark } from '../tokenizer/call-marks.ts';
import type { EncodeOptions, PromptPart, Tokenizer } from '../tokenizer/tokenizer.ts';
import { TokenizerError } from '../tokenizer/tokenizer-files.ts';
import { callSyntaxes } from './call-syntaxes.ts';
import type { ChatFormat, ChatFormatName } from './chat-format.ts';
import { encodeV32, v32Marks } from './deepseek-v32.ts';

interface FormatEntry {
  /** Tokens without which the format can't be written or read. */
  readonly tokens: readonly string[];
  /** True if a program writes the conversations, so that there need not be a template. */
  readonly isProgram: boolean;
  readonly thinksByDefault: boolean;
  /** True if the template takes the arguments of calls as objects, not as their JSON. */
  readonly takesObjects: boolean;
  /** Strings at which an answer ends, where there is no tokenizer to say. */
  readonly ends: readonly string[];
}

const plainFormat: FormatEntry = {
  tokens: [],
  isProgram: false,
  thinksByDefault: false,
  takesObjects: false,
  ends: [v32Marks.end],
};

export const chatFormats: Readonly<Record<ChatFormatName, FormatEntry>> = {
  jinja: { ...plainFormat, ends: [] },
  'deepseek-v32': {
    ...plainFormat,
    tokens: Object.values(v32Marks),
    isProgram: true,
  },
  'deepseek-v31': { ...plainFormat, tokens: callSyntaxes['deepseek-v31'].tokens },
  'deepseek-v3': { ...plainFormat, tokens: callSyntaxes['deepseek-v3'].tokens },
  glm: {
    tokens: ['<|user|>', '<|assistant|>', '<think>', '</think>', ...callSyntaxes.glm.tokens],
    isProgram: false,
    thinksByDefault: true,
    takesObjects: true,
    ends: ['<|endoftext|>', '<|user|>', '<|observation|>'],
  },
};

export interface FormatOptions {
  /** The parsed tokenizer_config.json, with the template in it. */
  readonly tokenizerConfig: unknown;
  readonly tokenizer: Tokenizer;
  /** The format of the model's family, where that is known. */
  readonly family?: string | null;
  /** Taken whatever the checkpoint looks like. */
  readonly forced?: ChatFormatName | null;
}

/** @throws TokenizerError for a tokenizer that lacks the format's marks, or a broken template */
export function openChatFormat(options: FormatOptions): ChatFormat {
  const { tokenizerConfig, tokenizer } = options;
  const template = createChatTemplate(tokenizerConfig, tokenizer);
  const name = chooseFormat(options);
  const entry = chatFormats[name];
  requireTokens(name, options);
  const calls = name === 'jinja' ? null : callSyntaxes[name];
  return {
    name,
    calls: calls !== null && hasAll(tokenizer, calls.tokens) ? calls : null,
    thinksByDefault: entry.thinksByDefault,
    efforts: entry.isProgram ? [] : effortsOf(templateText(tokenizerConfig)),
    showsAsSent: entry.isProgram,
    reasoningEndToken: template.reasoningEndToken,
    render: entry.isProgram
      ? (request, rendering) => renderV32(tokenizer, request, rendering)
      : (request, rendering) =>
          template.render(entry.takesObjects ? withObjects(request) : request, rendering),
  };
}

function chooseFormat({ tokenizerConfig, tokenizer, family, forced }: FormatOptions) {
  if (forced !== undefined && forced !== null) return forced;
  const template = templateText(tokenizerConfig);
  if (template === '') {
    const isProgram = family === 'deepseek-v32' || hasAll(tokenizer, [dsmlMark]);
    return isProgram && hasAll(tokenizer, chatFormats['deepseek-v32'].tokens)
      ? 'deepseek-v32'
      : 'jinja';
  }
  if (family === 'glm') return 'glm';
  if (hasAll(tokenizer, callSyntaxes['deepseek-v31'].tokens)) {
    return template.includes('```json') ? 'deepseek-v3' : 'deepseek-v31';
  }
  return hasAll(tokenizer, chatFormats.glm.tokens) ? 'glm' : 'jinja';
}

/** @throws TokenizerError */
function requireTokens(name: ChatFormatName, { tokenizer, tokenizerConfig }: FormatOptions): void {
  const { tokens, isProgram } = chatFormats[name];
  const lacking = tokens.find((token) => tokenizer.controlToken(token) === null);
  if (lacking !== undefined) {
    throw new TokenizerError(
      `tokenizer.json has no token ${lacking}, which the chat format ${name} needs`,
    );
  }
  if (name === 'jinja' || isProgram || templateText(tokenizerConfig) !== '') return;
  throw new TokenizerError(
    `tokenizer_config.json has no chat_template, which the chat format ${name} needs`,
  );
}

function hasAll(tokenizer: Tokenizer, tokens: readonly string[]): boolean {
  return tokens.every((token) => tokenizer.controlToken(token) !== null);
}

/** The depths that a template compares with, where it reads one at all; the lowest first. */
function effortsOf(template: string): readonly string[] {
  if (!template.includes('reasoning_effort')) return [];
  return ['low', 'medium', 'high', 'max'].filter((level) =>
    new RegExp(`['"]${level}['"]`).test(template),
  );
}

/** Writes the arguments of calls as objects; those that are none stay as they are. */
function withObjects(request: ChatRequest): ChatRequest {
  return { ...request, messages: request.messages.map(withObjectArguments) };
}

function withObjectArguments(message: ChatMessage): ChatMessage {
  const { tool_calls: calls } = message;
  if (!Array.isArray(calls)) return message;
  return { ...message, tool_calls: calls.map(withParsedArguments) };
}

function withParsedArguments(call: unknown): unknown {
  if (typeof call !== 'object' || call === null || !('function' in call)) return call;
  const { function: called } = call;
  if (typeof called !== 'object' || called === null || !('arguments' in called)) return call;
  return { ...call, function: { ...called, arguments: parsedArguments(called.arguments) } };
}

function parsedArguments(written: unknown): unknown {
  if (written === '') return {};
  try {
    const parsed: unknown = JSON.parse(String(written));
    return typeof parsed === 'object' && parsed !== null ? parsed : written;
  } catch {
    return written;
  }
}

function renderV32(
  tokenizer: Tokenizer,
  request: ChatRequest,
  options: Pick<EncodeOptions, 'tokensMax'> = {},
): RenderedChat {
  const { parts, insideReasoning } = encodeV32(request);
  const known = parts.map((part): PromptPart => {
    const isText = part.kind === 'text' || tokenizer.controlToken(part.content) !== null;
    return isText ? part : { kind: 'text', text: part.content };
  });
  return {
    text: textOfParts(parts),
    tokens: tokenizer.encodeParts(known, options),
    insideReasoning,
  };
}

export function textOfParts(parts: readonly PromptPart[]): string {
  return parts.map((part) => (part.kind === 'text' ? part.text : part.content)).join('');
}
