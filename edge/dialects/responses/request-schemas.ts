/** The requests of OpenAI's Responses API. */
import { z } from '@hono/zod-openapi';
import { boundedArray, schemaSchema } from '../../../gpu-worker/protocol/fields.ts';
import {
  logprobsMax,
  messagesMax,
  toolNameCharactersMax,
} from '../../../gpu-worker/protocol/limits.ts';
import { reasoningEfforts } from '../../../gpu-worker/protocol/requests.ts';
import { chatRequestSchema } from '../openai/request-schemas.ts';
import { itemSchema } from './item-schemas.ts';

const onlyFunctions = 'there are no built-in tools: only functions can be called';

const nameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]+$/)
  .max(toolNameCharactersMax);

const toolSchema = z.strictObject({
  type: z.literal('function', {
    error: ({ input }) => `'${String(input).slice(0, 64)}' is not supported: ${onlyFunctions}`,
  }),
  name: nameSchema,
  description: z.string().nullish(),
  parameters: schemaSchema.nullish(),
  /** True if the arguments of every call are held to the parameters' schema. */
  strict: z.boolean().nullish(),
  /** All tools are in the prompt. */
  defer_loading: z.literal(false, 'all tools are in the prompt').nullish(),
});

const chosenFunctionSchema = z.strictObject({ type: z.literal('function'), name: nameSchema });

const toolChoiceSchema = z.union([
  z.enum(['none', 'auto', 'required']),
  z.discriminatedUnion(
    'type',
    [
      chosenFunctionSchema,
      /** The functions that may be called; the model is shown no others. */
      z.strictObject({
        type: z.literal('allowed_tools'),
        mode: z.enum(['auto', 'required']),
        tools: boundedArray(chosenFunctionSchema, { min: 1, max: 128 }),
      }),
    ],
    onlyFunctions,
  ),
]);

const formatSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    description: z.string().nullish(),
    schema: schemaSchema,
    strict: z.boolean().nullish(),
  }),
]);

const textSchema = z.strictObject({
  format: formatSchema.nullish(),
  verbosity: z.literal('medium', 'the model has no levels of verbosity').nullish(),
});

/** The model's reasoning is shown whole, or not at all. */
const summarySchema = z
  .enum(['auto', 'detailed'], 'reasoning is not shortened: its summary is all of it')
  .nullish();

const reasoningSchema = z.strictObject({
  /** An effort turns thinking on, and `none` off; a model takes the nearest depth that it has. */
  effort: z.enum(reasoningEfforts).nullish(),
  summary: summarySchema,
  /** The older name of `summary`. */
  generate_summary: summarySchema,
});

const includable = ['message.output_text.logprobs', 'reasoning.encrypted_content'] as const;

/** The fields that a prompt is made of. */
const promptFields = {
  model: z.string().min(1).max(256),
  input: z.union([z.string(), boundedArray(itemSchema, { min: 1, max: messagesMax })]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().min(1).max(256).nullish(),
  tools: boundedArray(toolSchema, { max: 128 }).nullish(),
  tool_choice: toolChoiceSchema.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning: reasoningSchema.nullish(),
  text: textSchema.nullish(),
  truncation: z.literal('disabled', 'a conversation is never cut; send what fits').nullish(),
};

const chatFields = chatRequestSchema.shape;

export const responsesRequestSchema = z.strictObject({
  ...promptFields,
  max_output_tokens: z.int().min(1).nullish(),
  temperature: chatFields.temperature,
  top_p: chatFields.top_p,
  top_logprobs: z.int().min(0).max(logprobsMax).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({
      include_obfuscation: z.literal(false, 'events are not padded').nullish(),
    })
    .nullish(),
  include: z.array(z.enum(includable, 'the answer has nothing of the kind')).max(16).nullish(),
  /** Unless stated, EDGE_STORE_RESPONSES decides: by default nothing is stored. */
  store: z.boolean().nullish(),
  metadata: chatFields.metadata,
  user: chatFields.user,
  safety_identifier: chatFields.safety_identifier,
  prompt_cache_key: chatFields.prompt_cache_key,
  prompt_cache_retention: chatFields.prompt_cache_retention,
  /** There is one tier, and the answer says so. */
  service_tier: z
    .enum(['auto', 'default', 'flex', 'priority', 'scale', 'fast', 'ultrafast'])
    .nullish(),
  background: z.literal(false, 'answers are made while their client waits').nullish(),
  /** It bounds the calls of built-in tools, and there are none. */
  max_tool_calls: z.int().min(1).nullish(),
});
export type ResponsesRequest = z.infer<typeof responsesRequestSchema>;

/** A count of a prompt has the fields of the prompt alone. */
export const inputTokensRequestSchema = z.strictObject(promptFields);
