/**
 * A chat format brings the way to write conversations and to read calls of tools out of answers,
 * and says what it knows of thinking.
 */
import type { ChatRequest, RenderedChat } from '../tokenizer/chat-template.ts';
import type { EncodeOptions } from '../tokenizer/tokenizer.ts';
import type { ArgumentTypes } from './argument-types.ts';
import type { CallsPlan } from './call-grammar.ts';
import type { CallParser } from './call-parser.ts';

export const chatFormatNames = [
  'jinja',
  'deepseek-v32',
  'deepseek-v31',
  'deepseek-v3',
  'glm',
] as const;

export type ChatFormatName = (typeof chatFormatNames)[number];

/** The formats whose calls of tools are known. */
export type CallSyntaxName = Exclude<ChatFormatName, 'jinja'>;

/** The way in which a model was asked to call. Plain data: it goes from one thread to another. */
export interface CallForm {
  readonly syntax: CallSyntaxName;
  /** The types of arguments, where the syntax itself does not tell them. */
  readonly tools: readonly { readonly name: string; readonly types: ArgumentTypes | null }[];
}

/** A format's way to write calls of tools. */
export interface CallSyntax {
  readonly name: CallSyntaxName;
  /** The control tokens that a tokenizer must have for it. */
  readonly tokens: readonly string[];
  /** True if the types of arguments can't be told from the text. */
  readonly needsTypes: boolean;
  /** Call i of the parser gets the id `<idPrefix>-<i>`. */
  createParser(idPrefix: string, tools: CallForm['tools']): CallParser;
  /** All of its marks; each is one token where the tokenizer has it. */
  readonly marks: readonly string[];
  /** The text that calls begin with, which other text does not hold. */
  readonly begin: string;
  /** The text that no JSON of the arguments holds as it is, because it ends them. */
  readonly escaped: string;
  /** Writes the calls that may or have to be made into a grammar. */
  writeCalls(plan: CallsPlan): void;
}

/** A chat format over one tokenizer. */
export interface ChatFormat {
  readonly name: ChatFormatName;
  /** Null for a model that calls no tools. */
  readonly calls: CallSyntax | null;
  /** True if the model thinks unless it is told not to. */
  readonly thinksByDefault: boolean;
  /** The depths of thinking that a prompt can ask for, the lowest first. */
  readonly efforts: readonly string[];
  /**
   * True if the format shows tools as they were sent, and what a developer says as a turn of its
   * own. Templates fail on a tool without a description, and know no developers.
   */
  readonly showsAsSent: boolean;
  /** The token that ends reasoning, or null for a tokenizer without one. */
  readonly reasoningEndToken: number | null;
  /** @throws InvalidPromptError, with the template's own words if it refuses the messages */
  render(request: ChatRequest, options?: Pick<EncodeOptions, 'tokensMax'>): RenderedChat;
}
