/** The answers of Anthropic's routes, as the reference shows them. */
import { z } from '@hono/zod-openapi';
import { cacheMissReasonSchema } from '../cache-miss-reason.ts';
import { cachedCount, count, nanoUsd, stopCode } from '../quantities.ts';

export const errorSchema = z.object({
  type: z.literal('error'),
  error: z.object({
    type: z.string(),
    message: z.string(),
    details: z.looseObject({ error_code: z.string() }).optional(),
  }),
  request_id: z.string(),
});

export const messageSchema = z.object({
  id: z.string(),
  type: z.literal('message'),
  role: z.literal('assistant'),
  model: z.string(),
  content: z.array(z.looseObject({ type: z.enum(['thinking', 'text', 'tool_use']) })),
  stop_reason: z.enum(['end_turn', 'max_tokens', 'stop_sequence', 'tool_use', 'refusal']),
  stop_sequence: z.string().nullable(),
  usage: z.object({
    input_tokens: count.describe('Uncached prompt tokens alone.'),
    cache_creation_input_tokens: count,
    cache_read_input_tokens: cachedCount,
    output_tokens: count,
    output_tokens_details: z.object({ thinking_tokens: count }),
    cost_nano_usd: nanoUsd,
    cache_miss_reason: cacheMissReasonSchema,
    stopped_by: stopCode,
  }),
});

export const tokenCountSchema = z.object({
  input_tokens: count.describe('Of the whole prompt, cached and uncached.'),
});

const stamp = z.string().describe('RFC 3339.');

export const modelSchema = z.object({
  type: z.literal('model'),
  id: z.string(),
  display_name: z.string(),
  created_at: stamp,
  max_input_tokens: count,
  max_tokens: count,
  capabilities: z.null().describe('They depend on the workers.'),
  lifecycle: z.literal('active'),
  line: z.null(),
  deprecated_at: z.null(),
  retires_at: z.null(),
});

export const modelListSchema = z.object({
  data: z.array(modelSchema),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});
