/** The counts of a request's tokens, in a worker's answers and in its journal. */
import { z } from 'zod';
import { tokenCount } from './fields.ts';

/**
 * Cached tokens are billed in whole blocks of so many, whichever worker answered: sift's own block
 * and DeepSeek's unit. Other engines cache in smaller ones.
 */
export const billedBlockTokens = 64;

/** A sift worker's counts. `prompt_tokens` is the whole prompt: hits and misses. */
export const usageSchema = z.object({
  prompt_tokens: tokenCount,
  completion_tokens: tokenCount,
  total_tokens: tokenCount,
  prompt_tokens_details: z.object({ cached_tokens: tokenCount }),
  completion_tokens_details: z.object({ reasoning_tokens: tokenCount }),
  prompt_cache_hit_tokens: tokenCount,
  prompt_cache_miss_tokens: tokenCount,
});

export type Usage = z.infer<typeof usageSchema>;

/**
 * `GET /v1/requests/{id}/usage`; 404 for an id that was never seen. `interrupted`: the worker died;
 * usage is the last checkpoint's. `POST /v1/requests/{id}/cancel` answers the same and stops the
 * request; an id that was never seen is answered as `aborted` with nothing used, and refused from
 * then on.
 */
export const usageRecordSchema = z.object({
  object: z.literal('request.usage'),
  id: z.string(),
  model: z.string(),
  status: z.enum(['running', 'done', 'aborted', 'failed', 'interrupted']),
  /** Unix seconds. */
  created: z.int(),
  /** Unix seconds of the counts. */
  updated: z.int(),
  usage: usageSchema,
});

/** Ten counts and a few words. */
export const usageRecordBytesMax = 16 * 1024;

export type UsageRecord = z.infer<typeof usageRecordSchema>;
