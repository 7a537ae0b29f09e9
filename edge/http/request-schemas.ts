/**
 * What the public routes accept: the worker's schemas, and what clients send besides it. Values
 * that ask for what happens anyway (`store: false`) are accepted; others of such a parameter are
 * refused with the reason.
 */
import { z } from '@hono/zod-openapi';
import {
  chatCompletionRequestSchema,
  completionRequestSchema,
  stopStringCharactersMax,
  stopStringsMax,
  toolNameCharactersMax,
} from '../../gpu-worker/protocol.ts';

/** DeepSeek's: keeps users of one account apart in caches and in scheduling. */
const userIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,512}$/, 'expected 1 to 512 of A-Z, a-z, 0-9, _ and -');

const edgeFields = {
  user_id: userIdSchema.nullish(),
  store: z.literal(false, 'completions are not stored').nullish(),
  /** There is one tier; the answer says which one served it, as OpenAI's does. */
  service_tier: z.enum(['auto', 'default', 'flex', 'priority', 'scale']).nullish(),
};

/** Of what is stored, and nothing is; checked as OpenAI does. */
const metadataSchema = z
  .record(z.string().max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, 'expected at most 16 pairs');

const streamOptions = chatCompletionRequestSchema.shape.stream_options.unwrap().unwrap();

const openAiChatSchema = chatCompletionRequestSchema.extend({
  ...edgeFields,
  stream_options: streamOptions
    .extend({ include_obfuscation: z.literal(false, 'events are not padded').nullish() })
    .nullish(),
  metadata: metadataSchema.nullish(),
  modalities: z.array(z.literal('text', 'the model writes text only')).length(1).nullish(),
  /** Prefixes are found by themselves, in all of the account or within a user_id. */
  prompt_cache_key: z.string().max(1_024).nullish(),
  prompt_cache_retention: z
    .literal(['in_memory', 'in-memory'], 'cached prefixes stay until their room is needed')
    .nullish(),
  /** OpenAI's newer name of `user`. */
  safety_identifier: z.string().max(512).nullish(),
  verbosity: z.literal('medium', 'the model has no levels of verbosity').nullish(),
});

/** OpenAI's; workers take the longer names of Anthropic's tools too. */
const openAiToolNameCharactersMax = 64;

export const chatRequestSchema = openAiChatSchema.superRefine((request, context) => {
  for (const { name, path } of toolNames(request)) {
    if (name.length <= openAiToolNameCharactersMax) continue;
    const message = `expected at most ${openAiToolNameCharactersMax} characters`;
    context.addIssue({ code: 'custom', path, message, input: name });
  }
});

function toolNames({ tools, tool_choice: choice, messages }: z.infer<typeof openAiChatSchema>) {
  const chosen = choice && typeof choice === 'object' ? [choice] : [];
  return [
    ...(tools ?? []).map((tool, at) => ({ name: tool.function.name, at: ['tools', at] })),
    ...chosen.map((tool) => ({ name: tool.function.name, at: ['tool_choice'] })),
    ...messages.flatMap((message, index) =>
      (message.role === 'assistant' ? (message.tool_calls ?? []) : []).map((call, at) => ({
        name: call.function.name,
        at: ['messages', index, 'tool_calls', at],
      })),
    ),
  ].map(({ name, at }) => ({ name, path: [...at, 'function', 'name'] }));
}
export type ChatRequest = z.infer<typeof chatRequestSchema>;

export const textRequestSchema = completionRequestSchema.extend({
  ...edgeFields,
  best_of: z.literal(1, 'use n and choose among the answers').nullish(),
});
export type TextRequest = z.infer<typeof textRequestSchema>;

// ---- Anthropic's messages ------------------------------------------------------------------------

/** Accepted everywhere and without effect: prefixes are cached automatically. */
const cacheControlSchema = z.looseObject({ type: z.literal('ephemeral') }).nullish();

const textBlockSchema = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  /** Of an earlier answer; the model is shown the text. */
  citations: z.array(z.unknown()).nullish(),
  cache_control: cacheControlSchema,
});

function blocks<Blocks extends readonly [z.ZodObject, ...z.ZodObject[]]>(options: Blocks) {
  return z.discriminatedUnion('type', options, 'the model reads text and the results of tools');
}

const resultContentSchema = z.union([z.string(), z.array(textBlockSchema).max(1024)]);

const userBlockSchema = blocks([
  textBlockSchema,
  z.strictObject({
    type: z.literal('tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: resultContentSchema.nullish(),
    is_error: z.boolean().nullish(),
    cache_control: cacheControlSchema,
  }),
]);

const assistantBlockSchema = blocks([
  textBlockSchema,
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string().min(1).max(256),
    name: z.string().min(1).max(toolNameCharactersMax),
    input: z.record(z.string(), z.unknown()),
    caller: z.looseObject({ type: z.literal('direct') }).nullish(),
    cache_control: cacheControlSchema,
  }),
  /** A search that the provider of an earlier answer ran, and what it found. */
  z.strictObject({
    type: z.literal('server_tool_use'),
    id: z.string().min(1).max(256),
    name: z.string().min(1).max(toolNameCharactersMax),
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

const anthropicMessageSchema = z.discriminatedUnion('role', [
  z.strictObject({
    role: z.literal('user'),
    content: z.union([z.string(), z.array(userBlockSchema).min(1).max(1024)]),
  }),
  z.strictObject({
    role: z.literal('assistant'),
    content: z.union([z.string(), z.array(assistantBlockSchema).min(1).max(1024)]),
  }),
]);
export type AnthropicMessage = z.infer<typeof anthropicMessageSchema>;

const anthropicToolSchema = z.strictObject({
  type: z.literal('custom').nullish(),
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
  cache_control: cacheControlSchema,
});

/** At most one call. */
const parallel = { disable_parallel_tool_use: z.boolean().nullish() };

export const messagesRequestSchema = z.strictObject({
  model: z.string().min(1).max(256),
  max_tokens: z.int().min(1),
  messages: z.array(anthropicMessageSchema).min(1).max(8192),
  system: z.union([z.string(), z.array(textBlockSchema).max(1024)]).nullish(),
  stop_sequences: z
    .array(z.string().min(1).max(stopStringCharactersMax))
    .max(stopStringsMax)
    .nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  /** The budget has no effect: reasoning counts towards max_tokens. */
  thinking: z
    .discriminatedUnion('type', [
      z.strictObject({
        type: z.literal('enabled'),
        budget_tokens: z.int().min(1).nullish(),
        display: z.literal('summarized', 'reasoning is always shown').nullish(),
      }),
      z.strictObject({
        type: z.literal('adaptive'),
        display: z.literal('summarized', 'reasoning is always shown').nullish(),
      }),
      z.strictObject({ type: z.literal('disabled') }),
    ])
    .nullish(),
  tools: z.array(anthropicToolSchema).max(128).nullish(),
  tool_choice: z
    .discriminatedUnion('type', [
      z.strictObject({ type: z.literal('auto'), ...parallel }),
      z.strictObject({ type: z.literal('any'), ...parallel }),
      z.strictObject({ type: z.literal('none') }),
      z.strictObject({
        type: z.literal('tool'),
        name: z.string().min(1).max(toolNameCharactersMax),
        ...parallel,
      }),
    ])
    .nullish(),
  output_config: z
    .strictObject({
      /** Turns thinking on unless `thinking` says; the models know one depth of it. */
      effort: z.enum(['low', 'medium', 'high', 'xhigh', 'max']).nullish(),
      /** The answer is held to the schema token by token. */
      format: z
        .strictObject({
          type: z.literal('json_schema'),
          schema: z.record(z.string(), z.unknown()),
        })
        .nullish(),
    })
    .nullish(),
  metadata: z.strictObject({ user_id: z.string().min(1).max(512).nullish() }).nullish(),
  service_tier: z.enum(['auto', 'standard_only'], 'there is one tier').nullish(),
  speed: z.literal('standard', 'there is one speed').nullish(),
  /** Ignored, as DeepSeek does: nothing runs here but the model. */
  container: z.union([z.string(), z.looseObject({})]).nullish(),
  mcp_servers: z.array(z.looseObject({})).max(64).nullish(),
  cache_control: cacheControlSchema,
});
export type MessagesRequest = z.infer<typeof messagesRequestSchema>;

export const countTokensRequestSchema = messagesRequestSchema.pick({
  model: true,
  messages: true,
  system: true,
  thinking: true,
  tools: true,
  tool_choice: true,
  output_config: true,
  cache_control: true,
  speed: true,
});
export type CountTokensRequest = z.infer<typeof countTokensRequestSchema>;
