/** The answers of the Responses API, as the reference shows them. */
import { z } from '@hono/zod-openapi';
import { cacheMissReasonSchema } from '../cache-miss-reason.ts';
import { cachedCount, count, nanoUsd, stopCode } from '../quantities.ts';

const status = z.enum(['in_progress', 'completed', 'incomplete', 'failed']);
const head = { id: z.string(), status };

const outputItemSchema = z.discriminatedUnion('type', [
  z.object({
    ...head,
    type: z.literal('reasoning'),
    summary: z.array(z.object({ type: z.literal('summary_text'), text: z.string() })),
    content: z.array(z.object({ type: z.literal('reasoning_text'), text: z.string() })).optional(),
    encrypted_content: z
      .string()
      .optional()
      .describe('With include: the text again, to be sent back. It hides nothing.'),
  }),
  z.object({
    ...head,
    type: z.literal('message'),
    role: z.literal('assistant'),
    content: z.array(
      z.object({
        type: z.literal('output_text'),
        text: z.string(),
        annotations: z.array(z.unknown()),
        logprobs: z.array(z.unknown()),
      }),
    ),
  }),
  z.object({
    ...head,
    type: z.literal('function_call'),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
  }),
]);

export const responseSchema = z.looseObject({
  id: z.string(),
  object: z.literal('response'),
  created_at: z.int(),
  status,
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z
    .object({ reason: z.enum(['max_output_tokens', 'content_filter']) })
    .nullable(),
  model: z.string(),
  output: z.array(outputItemSchema),
  previous_response_id: z.string().nullable(),
  store: z.boolean().describe('false too where the response was too long to be stored'),
  usage: z
    .object({
      input_tokens: count.describe('The whole prompt: cached and uncached.'),
      input_tokens_details: z.object({ cached_tokens: cachedCount, cache_write_tokens: count }),
      output_tokens: count,
      output_tokens_details: z.object({ reasoning_tokens: count }),
      total_tokens: count,
      cost_nano_usd: nanoUsd,
      cache_miss_reason: cacheMissReasonSchema,
      stopped_by: stopCode,
    })
    .nullable(),
});

export const inputTokensSchema = z.object({
  object: z.literal('response.input_tokens'),
  input_tokens: count,
});
