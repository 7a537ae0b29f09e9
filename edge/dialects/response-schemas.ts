/** The answers of the routes that answer with plain objects; also what the reference page shows. */
import { z } from '@hono/zod-openapi';

const count = z.int().min(0);
const cachedCount = count
  .nullable()
  .describe('null where the engine does not say: nothing is billed as cached then.');
const nanoUsd = z.int().describe('Nano-USD: 1,000,000,000 are one US dollar.');

export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
  }),
});

export const anthropicErrorSchema = z.object({
  type: z.literal('error'),
  error: z.object({
    type: z.string(),
    message: z.string(),
    details: z.looseObject({ error_code: z.string() }).optional(),
  }),
  request_id: z.string(),
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
});

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
    }),
  ),
  usage: usageSchema,
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
    }),
  ),
  usage: usageSchema,
});

export const anthropicMessageSchema = z.object({
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
  }),
});

export const tokenCountSchema = z.object({
  input_tokens: count.describe('Of the whole prompt, cached and uncached.'),
});

export const modelSchema = z.object({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.string(),
  context_length: count,
});

export const modelListSchema = z.object({ object: z.literal('list'), data: z.array(modelSchema) });

export const balanceSchema = z.object({
  is_available: z.boolean().describe('Whether a request may be admitted at all.'),
  balance_infos: z.array(
    z.object({
      currency: z.literal('USD'),
      total_balance: z.string().describe('What was granted and topped up, exact, such as "9.50".'),
      granted_balance: z.string(),
      topped_up_balance: z.string(),
    }),
  ),
});

const day = z.string().regex(/^\d{4}-\d\d-\d\d$/, 'expected a day such as 2026-01-31');

export const usageQuerySchema = z.strictObject({
  from: day.optional().describe('First day, UTC; 30 days ago without it.'),
  to: day.optional().describe('Last day, UTC; today without it.'),
});

export const usageReportSchema = z.object({
  object: z.literal('list'),
  from: day,
  to: day,
  data: z.array(
    z.object({
      day,
      model: z.string(),
      key_id: z.string(),
      requests: count,
      usage: usageSchema,
    }),
  ),
  total: z.object({ requests: count, usage: usageSchema }),
});

export const quoteSchema = z.object({
  object: z.literal('quote'),
  model: z.string(),
  prices: z
    .object({ cached_input: nanoUsd, input: nanoUsd, output: nanoUsd })
    .describe('In nano-USD per 1,000,000 tokens, as in force now.'),
  max_cost_nano_usd: nanoUsd.describe('No request costs more; this much is held while it runs.'),
  prompt_tokens_max: count,
  output_tokens_max: count,
  prompt_tokens_estimate: count,
  cached_tokens_estimate: count.describe('What the prefix index expects a worker to have cached.'),
  input_cost_estimate_nano_usd: nanoUsd,
});

const stamp = z.string().describe('RFC 3339.');

export const anthropicModelSchema = z.object({
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

export const anthropicModelListSchema = z.object({
  data: z.array(anthropicModelSchema),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});
