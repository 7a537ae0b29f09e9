/** The items of a conversation: messages, calls of functions and their results, and reasoning. */
import { z } from '@hono/zod-openapi';
import { boundedArray } from '../../../gpu-worker/protocol/fields.ts';
import { toolNameCharactersMax } from '../../../gpu-worker/protocol/limits.ts';

const textOnly = 'the model reads and writes text only';
const noBuiltIn = 'there are no built-in tools';

const idSchema = z.string().min(1).max(256);
const ownId = idSchema.nullish();
const statusSchema = z.enum(['in_progress', 'completed', 'incomplete']).nullish();

/** A union by `type` whose message names the type that is refused, and says why. */
function byType<Options extends readonly [z.ZodObject, ...z.ZodObject[]]>(
  options: Options,
  reason: string,
) {
  return z.discriminatedUnion('type', options, {
    error: ({ input }) => {
      const { type = '' } =
        typeof input === 'object' && input !== null ? { type: '', ...input } : {};
      return `'${String(type).slice(0, 64)}' is not supported: ${reason}`;
    },
  });
}

const partSchema = byType(
  [
    z.strictObject({ type: z.literal('input_text'), text: z.string() }),
    z.strictObject({
      type: z.literal('output_text'),
      text: z.string(),
      annotations: z.array(z.unknown()).nullish(),
      logprobs: z.array(z.unknown()).nullish(),
      /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
      parsed: z.unknown().optional(),
    }),
    z.strictObject({ type: z.literal('refusal'), refusal: z.string() }),
  ],
  textOnly,
);

const contentSchema = z.union([z.string(), boundedArray(partSchema, { max: 1024 })]);

const messageSchema = z.strictObject({
  type: z.literal('message'),
  id: ownId,
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content: contentSchema,
  status: statusSchema,
  /** Says if a message of the assistant was its last word; the chat formats do not tell. */
  phase: z.enum(['commentary', 'final_answer']).nullish(),
});

const functionCallSchema = z.strictObject({
  type: z.literal('function_call'),
  id: ownId,
  call_id: idSchema,
  name: z.string().min(1).max(toolNameCharactersMax),
  arguments: z.string(),
  status: statusSchema,
  namespace: z.null('functions have no namespaces').optional(),
  /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
  parsed_arguments: z.unknown().optional(),
});

const functionCallOutputSchema = z.strictObject({
  type: z.literal('function_call_output'),
  id: ownId,
  call_id: idSchema,
  output: contentSchema,
  status: statusSchema,
});

const reasoningSchema = z.strictObject({
  type: z.literal('reasoning'),
  id: ownId,
  summary: z.array(z.strictObject({ type: z.literal('summary_text'), text: z.string() })).max(1024),
  content: z
    .array(z.strictObject({ type: z.literal('reasoning_text'), text: z.string() }))
    .max(1024)
    .nullish(),
  encrypted_content: z.string().nullish(),
  status: statusSchema,
});

const referenceSchema = z.strictObject({ type: z.literal('item_reference'), id: idSchema });

const itemsOfType = byType(
  [messageSchema, functionCallSchema, functionCallOutputSchema, reasoningSchema, referenceSchema],
  noBuiltIn,
);

/** Messages and references may leave their type out. */
export const itemSchema = z.preprocess(withType, itemsOfType);

export type Item = z.infer<typeof itemSchema>;
export type Content = z.infer<typeof contentSchema>;

function withType(item: unknown): unknown {
  if (typeof item !== 'object' || item === null) return item;
  if ('type' in item && item.type !== null && item.type !== undefined) return item;
  if ('role' in item) return { ...item, type: 'message' };
  return 'id' in item ? { ...item, type: 'item_reference' } : item;
}
