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
} from '../../gpu-worker/protocol.ts';

/** DeepSeek's: keeps users of one account apart in caches and in scheduling. */
const userIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,512}$/, 'expected 1 to 512 of A-Z, a-z, 0-9, _ and -');

const edgeFields = {
  user_id: userIdSchema.nullish(),
  store: z.literal(false, 'completions are not stored').nullish(),
  service_tier: z.enum(['auto', 'default'], 'there is one tier').nullish(),
};

export const chatRequestSchema = chatCompletionRequestSchema.extend({
  ...edgeFields,
  parallel_tool_calls: z.literal(true, 'the model decides how many tools it calls').nullish(),
});
export type ChatRequest = z.infer<typeof chatRequestSchema>;

export const textRequestSchema = completionRequestSchema.extend(edgeFields);
export type TextRequest = z.infer<typeof textRequestSchema>;

// ---- Anthropic's messages ------------------------------------------------------------------------

/** Accepted everywhere and without effect: prefixes are cached automatically. */
const cacheControlSchema = z.looseObject({ type: z.literal('ephemeral') }).nullish();

const textBlockSchema = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  cache_control: cacheControlSchema,
});

const resultContentSchema = z.union([z.string(), z.array(textBlockSchema).max(1024)]);

const userBlockSchema = z.discriminatedUnion('type', [
  textBlockSchema,
  z.strictObject({
    type: z.literal('tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: resultContentSchema.nullish(),
    is_error: z.boolean().nullish(),
    cache_control: cacheControlSchema,
  }),
]);

const assistantBlockSchema = z.discriminatedUnion('type', [
  textBlockSchema,
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string().min(1).max(256),
    name: z.string().min(1).max(64),
    input: z.record(z.string(), z.unknown()),
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
  name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  description: z.string().nullish(),
  input_schema: z.looseObject({ type: z.literal('object') }),
  cache_control: cacheControlSchema,
});

/** Ignored, as the model alone decides how many tools it calls. */
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
  temperature: z.number().min(0).max(1).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
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
      z.strictObject({ type: z.literal('tool'), name: z.string().min(1).max(64), ...parallel }),
    ])
    .nullish(),
  metadata: z.strictObject({ user_id: z.string().min(1).max(512).nullish() }).nullish(),
  service_tier: z.enum(['auto', 'standard_only'], 'there is one tier').nullish(),
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
  cache_control: true,
});
export type CountTokensRequest = z.infer<typeof countTokensRequestSchema>;
