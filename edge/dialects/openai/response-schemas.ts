/** The answers of OpenAI's routes, as the reference shows them. */
import { z } from '@hono/zod-openapi';
import { cacheMissReasonSchema } from '../cache-miss-reason.ts';
import { cachedCount, count, nanoUsd, stopCode } from '../quantities.ts';

export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
    details: z
      .looseObject({ error_code: z.string() })
      .optional()
      .describe('Of `budget_exhausted`: the budget, its window, and what is left of it.'),
  }),
});

export const usageSchema = z.object({
  prompt_tokens: count.describe('The whole prompt: cached and uncached.'),
  completion_tokens: count,
  total_tokens: count,
  prompt_tokens_details: z.object({ cached_tokens: cachedCount }),
  completion_tokens_details: z.object({ reasoning_tokens: count }),
  prompt_cache_hit_tokens: cachedCount,
  prompt_cache_miss_tokens: count,
  cost_nano_usd: nanoUsd,
  stopped_by: stopCode,
});

/** The usage of one answer. */
const answerUsageSchema = usageSchema.extend({ cache_miss_reason: cacheMissReasonSchema });

export const chatCompletionSchema = z.looseObject({
  id: z.string(),
  object: z.literal('chat.completion'),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: count,
      message: z.object({
        role: z.literal('assistant'),
        content: z.string().nullable(),
        reasoning_content: z.string().optional(),
        tool_calls: z
          .array(
            z.object({
              id: z.string(),
              type: z.literal('function'),
              function: z.object({ name: z.string(), arguments: z.string() }),
            }),
          )
          .optional(),
      }),
      logprobs: z.looseObject({}).nullable(),
      finish_reason: z.string().nullable(),
      stopped_by: stopCode,
    }),
  ),
  usage: answerUsageSchema,
});

export const completionSchema = z.looseObject({
  id: z.string(),
  object: z.literal('text_completion'),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.looseObject({
      index: count,
      text: z.string(),
      logprobs: z.looseObject({}).nullable(),
      finish_reason: z.string().nullable(),
      stopped_by: stopCode,
    }),
  ),
  usage: answerUsageSchema,
});

export const modelSchema = z.object({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.string(),
  context_length: count,
});

export const modelListSchema = z.object({ object: z.literal('list'), data: z.array(modelSchema) });
