/** The messages of Anthropic's protocol: what a user, the assistant and the system can say. */
import { z } from '@hono/zod-openapi';
import {
  assistantBlockSchema,
  blocks,
  cacheControlSchema,
  textBlockSchema,
  userBlockSchema,
} from './block-schemas.ts';
import { anthropicToolSchema, toolByNameSchema } from './tool-schemas.ts';

export const efforts = ['low', 'medium', 'high', 'xhigh', 'max'] as const;

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
    /** The stated effort replaces the request's own from here on. */
    output_config: z.strictObject({ effort: z.enum(efforts).nullish() }).nullish(),
  }),
]);

export type AnthropicMessage = z.infer<typeof anthropicMessageSchema>;
export type UserMessage = Extract<AnthropicMessage, { role: 'user' }>;
export type AssistantMessage = Extract<AnthropicMessage, { role: 'assistant' }>;
export type SystemMessage = Extract<AnthropicMessage, { role: 'system' }>;
