/**
 * The requests that Anthropic's routes accept. Fields that are accepted and have no effect stand in
 * `ignoredFields`: the answer is as right without them. All other fields of Anthropic's
 * documentation are refused by name (unsupported.ts).
 */
import { z } from '@hono/zod-openapi';
import { stopStringCharactersMax, stopStringsMax } from '../../../gpu-worker/protocol/limits.ts';
import { cacheControlSchema, textBlockSchema } from './block-schemas.ts';
import { anthropicMessageSchema, efforts } from './message-schemas.ts';
import { anthropicToolSchema } from './tool-schemas.ts';

const formatSchema = z
  .strictObject({ type: z.literal('json_schema'), schema: z.record(z.string(), z.unknown()) })
  .nullish();

const thinkingFields = {
  /** Thinking that is hidden is computed and billed all the same. */
  display: z.enum(['summarized', 'omitted', 'updates']).nullish(),
  /** No thinking block of an earlier turn is checked. */
  block_binding: z.looseObject({}).nullish(),
};

/** The budget has no effect: reasoning counts towards max_tokens. */
const thinkingSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('enabled'),
    budget_tokens: z.int().min(1).nullish(),
    ...thinkingFields,
  }),
  z.strictObject({ type: z.literal('adaptive'), ...thinkingFields }),
  z.strictObject({ type: z.literal('disabled') }),
  /** Progress notes between calls of tools are text of the answer here. */
  z.strictObject({ type: z.literal('between_tools') }),
]);

/** With `true` the answer has one call at most. */
const parallel = { disable_parallel_tool_use: z.boolean().nullish() };

const toolChoiceSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auto'), ...parallel }),
  z.strictObject({ type: z.literal('any'), ...parallel }),
  z.strictObject({ type: z.literal('none') }),
  z.strictObject({
    type: z.literal('tool'),
    name: anthropicToolSchema.shape.name,
    ...parallel,
  }),
]);

const outputConfigSchema = z.strictObject({
  /** An effort turns thinking on unless `thinking` says; a model takes the nearest depth it has. */
  effort: z.enum(efforts).nullish(),
  /** The answer is held to the schema token by token. */
  format: formatSchema,
  /** The models are not told of budgets. */
  task_budget: z.looseObject({}).nullish(),
});

/** Fields without effect: the answer is as right without them. */
const ignoredFields = {
  cache_control: cacheControlSchema,
  /** The conversation is what the client sends; nothing is cleared from it. */
  context_management: z
    .looseObject({
      edits: z
        .array(z.looseObject({ type: z.string() }))
        .max(64)
        .nullish(),
    })
    .nullish(),
  speed: z.enum(['standard', 'fast']).nullish(),
  /** They are ignored, as DeepSeek does: nothing runs here but the model. */
  mcp_servers: z.array(z.looseObject({})).max(64).nullish(),
  betas: z.array(z.string()).max(256).nullish(),
  user_profile_id: z.string().max(512).nullish(),
  billing_policy: z
    .strictObject({
      type: z.literal('billing_policy'),
      bill_to: z.literal('self', 'the account of the key is billed').nullish(),
    })
    .nullish(),
};

/** The fields that a prompt is made of. */
const promptFields = {
  model: z.string().min(1).max(256),
  messages: z.array(anthropicMessageSchema).min(1).max(8192),
  system: z.union([z.string(), z.array(textBlockSchema).max(1024)]).nullish(),
  thinking: thinkingSchema.nullish(),
  tools: z.array(anthropicToolSchema).max(128).nullish(),
  tool_choice: toolChoiceSchema.nullish(),
  output_config: outputConfigSchema.nullish(),
  /** The older name of `output_config.format`. */
  output_format: formatSchema,
};

export const messagesRequestSchema = z.strictObject({
  ...promptFields,
  ...ignoredFields,
  max_tokens: z.int().min(1),
  stop_sequences: z
    .array(z.string().min(1).max(stopStringCharactersMax))
    .max(stopStringsMax)
    .nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  /** Prefixes are shared within the account, whoever of its users asks. */
  metadata: z.strictObject({ user_id: z.string().min(1).max(512).nullish() }).nullish(),
  service_tier: z.enum(['auto', 'standard_only'], 'there is one tier').nullish(),
  container: z.union([z.string(), z.looseObject({})]).nullish(),
  diagnostics: z.looseObject({}).nullish(),
  /** No request is declined for what it says. */
  fallbacks: z.union([z.literal('default'), z.array(z.looseObject({})).max(64)]).nullish(),
  fallback_credit_token: z.union([z.string(), z.looseObject({})]).nullish(),
});
export type MessagesRequest = z.infer<typeof messagesRequestSchema>;

export const countTokensRequestSchema = z.strictObject({
  ...promptFields,
  ...ignoredFields,
  /** A count is of the messages as they are. */
  compaction: z.looseObject({}).nullish(),
});
