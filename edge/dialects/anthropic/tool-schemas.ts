/** Tools of Anthropic's protocol, which a system message may change. */
import { z } from '@hono/zod-openapi';
import { toolNameCharactersMax } from '../../../gpu-worker/protocol/limits.ts';
import { cacheControlSchema } from './block-schemas.ts';

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
  /** If true, the input of every call is held to the schema. */
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

export const toolByNameSchema = z.strictObject({
  type: z.literal('tool_reference', 'the model has no tools of other servers'),
  name: z.string().min(1).max(toolNameCharactersMax),
});

export type AnthropicTool = z.infer<typeof anthropicToolSchema>;
