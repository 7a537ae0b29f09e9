/**
 * The messages of Anthropic's protocol: what a user, the assistant and the system can say. What their
 * clients send back of earlier answers is accepted, the searches of other providers among it.
 */
import { z } from '@hono/zod-openapi';
import { toolNameCharactersMax } from '../../../gpu-worker/protocol/limits.ts';

/** Accepted everywhere and without effect: prefixes are cached automatically. */
export const cacheControlSchema = z.looseObject({ type: z.literal('ephemeral') }).nullish();

export const efforts = ['low', 'medium', 'high', 'xhigh', 'max'] as const;

export const textBlockSchema = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  /** Of an earlier answer; the model is shown the text. */
  citations: z.array(z.unknown()).nullish(),
  cache_control: cacheControlSchema,
});

function blocks<Blocks extends readonly [z.ZodObject, ...z.ZodObject[]]>(options: Blocks) {
  return z.discriminatedUnion('type', options, 'the model reads text and the results of tools');
}

/** Of what was found and of documents, which are shown as text; answers cite nothing. */
const citationsSchema = z.looseObject({}).nullish();

const searchResultBlockSchema = z.strictObject({
  type: z.literal('search_result'),
  source: z.string(),
  title: z.string(),
  content: z.array(textBlockSchema).max(1024),
  citations: citationsSchema,
  cache_control: cacheControlSchema,
});

const documentBlockSchema = z.strictObject({
  type: z.literal('document'),
  source: z.strictObject({
    type: z.literal('text', 'the model reads text only'),
    media_type: z.literal('text/plain'),
    data: z.string(),
  }),
  title: z.string().nullish(),
  context: z.string().nullish(),
  citations: citationsSchema,
  cache_control: cacheControlSchema,
});

const readableBlockSchemas = [
  textBlockSchema,
  searchResultBlockSchema,
  documentBlockSchema,
] as const;

const noToolset = z.null('the model has no toolsets').optional();

/** What a tool search of the client's found; all tools are in the prompt, so it is told as text. */
const toolReferenceBlockSchema = z.strictObject({
  type: z.literal('tool_reference'),
  tool_name: z.string().min(1).max(256),
  cache_control: cacheControlSchema,
});

const resultContentSchema = z.union([
  z.string(),
  z.array(blocks([...readableBlockSchemas, toolReferenceBlockSchema])).max(1024),
]);

const userBlockSchema = blocks([
  ...readableBlockSchemas,
  z.strictObject({
    type: z.literal('tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: resultContentSchema.nullish(),
    is_error: z.boolean().nullish(),
    toolset_name: noToolset,
    cache_control: cacheControlSchema,
  }),
]);

const calledNameSchema = z.string().min(1).max(toolNameCharactersMax);

const assistantBlockSchema = blocks([
  textBlockSchema,
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string().min(1).max(256),
    name: calledNameSchema,
    input: z.record(z.string(), z.unknown()),
    caller: z.looseObject({ type: z.literal('direct') }).nullish(),
    toolset_name: noToolset,
    cache_control: cacheControlSchema,
  }),
  /** A search that the provider of an earlier answer ran, and what it found. */
  z.strictObject({
    type: z.literal('server_tool_use'),
    id: z.string().min(1).max(256),
    name: calledNameSchema,
    input: z.record(z.string(), z.unknown()),
    caller: z.looseObject({ type: z.string() }).nullish(),
    cache_control: cacheControlSchema,
  }),
  z.strictObject({
    type: z.literal('web_search_tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: z.union([
      z.array(z.looseObject({ title: z.string().nullish(), url: z.string().nullish() })).max(1024),
      z.looseObject({ error_code: z.string() }),
    ]),
    caller: z.looseObject({ type: z.string() }).nullish(),
    cache_control: cacheControlSchema,
  }),
]);

// ---- tools, which a system message may change --------------------------------------------------

export const anthropicToolSchema = z.strictObject({
  type: z
    .literal('custom', 'the model knows no tools but those that the request describes')
    .nullish(),
  name: z
    .string()
    .regex(/^[A-Za-z0-9_-]+$/)
    .max(toolNameCharactersMax),
  description: z.string().nullish(),
  input_schema: z.looseObject({ type: z.literal('object') }),
  /** Whether the input of every call is held to the schema. */
  strict: z.boolean().nullish(),
  /** Arguments are streamed as they are generated in any case. */
  eager_input_streaming: z.boolean().nullish(),
  /** No code runs here that could call a tool in the model's place. */
  allowed_callers: z
    .array(z.string())
    .max(16)
    .refine((callers) => callers.includes('direct'), 'only the model itself calls tools')
    .nullish(),
  /** All tools are in the prompt. */
  defer_loading: z.boolean().nullish(),
  /** The chat formats have no examples of calls. */
  input_examples: z.array(z.unknown()).max(1024).nullish(),
  cache_control: cacheControlSchema,
});

const toolByNameSchema = z.strictObject({
  type: z.literal('tool_reference', 'the model has no tools of other servers'),
  name: z.string().min(1).max(toolNameCharactersMax),
});

const systemBlockSchema = blocks([
  textBlockSchema,
  z.strictObject({
    type: z.literal('tool_addition'),
    tool: z.discriminatedUnion('type', [
      toolByNameSchema,
      z.strictObject({ type: z.literal('tool_definition'), definition: anthropicToolSchema }),
    ]),
    cache_control: cacheControlSchema,
  }),
  z.strictObject({
    type: z.literal('tool_removal'),
    tool: toolByNameSchema,
    cache_control: cacheControlSchema,
  }),
]);

// ---- messages ----------------------------------------------------------------------------------

export const anthropicMessageSchema = z.discriminatedUnion('role', [
  z.strictObject({
    role: z.literal('user'),
    content: z.union([z.string(), z.array(userBlockSchema).min(1).max(1024)]),
  }),
  z.strictObject({
    role: z.literal('assistant'),
    content: z.union([z.string(), z.array(assistantBlockSchema).min(1).max(1024)]),
  }),
  z.strictObject({
    role: z.literal('system'),
    content: z.union([z.string(), z.array(systemBlockSchema).max(1024)]).nullish(),
    /** `next_user_message`: it is shown until the user speaks again. */
    clear_at: z.enum(['next_user_message', 'never']).nullish(),
    /** In place of the request's own, from here on. */
    output_config: z.strictObject({ effort: z.enum(efforts).nullish() }).nullish(),
  }),
]);

export type AnthropicMessage = z.infer<typeof anthropicMessageSchema>;
export type UserMessage = Extract<AnthropicMessage, { role: 'user' }>;
export type AssistantMessage = Extract<AnthropicMessage, { role: 'assistant' }>;
export type SystemMessage = Extract<AnthropicMessage, { role: 'system' }>;
export type AnthropicTool = z.infer<typeof anthropicToolSchema>;
