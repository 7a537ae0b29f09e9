/** A conversation as a request has it: messages with their parts, tool calls, and tools. */
import { z } from 'zod';
import { boundedArray, schemaSchema } from './fields.ts';
import { toolNameCharactersMax } from './limits.ts';

const textOnly = 'the model reads and writes text only';

const textPartSchema = z.strictObject({ type: z.literal('text', textOnly), text: z.string() });

const contentSchema = z.union([z.string(), boundedArray(textPartSchema, { min: 1, max: 1024 })]);

/** Names a tool that is called or has to be; one of a history may have been another provider's. */
const calledNameSchema = z.string().min(1).max(toolNameCharactersMax);

const toolCallFieldsSchema = z.strictObject({
  id: z.string().min(1).max(256),
  type: z.literal('function').nullish(),
  /** Streamed calls have one, and programs that collect them keep it. */
  index: z.int().min(0).nullish(),
  function: z
    .strictObject({
      name: calledNameSchema,
      /** Some engines answer with an object in place of its text. */
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]),
      /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
      parsed_arguments: z.unknown().optional(),
    })
    .transform(({ parsed_arguments: _parsed, name, arguments: stated }) => ({
      name,
      arguments: typeof stated === 'string' ? stated : JSON.stringify(stated),
    })),
});

export const toolCallSchema = toolCallFieldsSchema.transform(({ id, function: called }) => ({
  id,
  type: 'function' as const,
  function: called,
}));

/** Names a participant. The chat formats have no names, so the model is not shown it. */
const nameSchema = z.string().max(256).nullish();

const assistantFieldsSchema = z.strictObject({
  role: z.literal('assistant'),
  name: nameSchema,
  content: contentSchema.nullish(),
  /** Reasoning of earlier turns is dropped by the chat format; with `prefix` it is continued. */
  reasoning_content: z.string().nullish(),
  /** The name that vLLM and others have for it. */
  reasoning: z.string().nullish(),
  /** Gateways add this beside it; it says the same in parts. */
  reasoning_details: z.array(z.unknown()).nullish(),
  /** DeepSeek's chat prefix completion: the answer goes on from this, the last, message. */
  prefix: z.boolean().nullish(),
  /** An empty list is that of a message without calls, as vLLM writes it. */
  tool_calls: boundedArray(toolCallSchema, { max: 128 }).nullish(),
  /** Present in OpenAI's own answers, which clients send back as history. */
  refusal: z.string().nullish(),
  audio: z.null(textOnly).optional(),
  function_call: z.null('it was replaced by tool_calls').optional(),
  annotations: z.array(z.unknown()).max(0, 'the model does not annotate').nullish(),
  /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
  parsed: z.unknown().optional(),
});

const assistantMessageSchema = assistantFieldsSchema.transform(
  ({ parsed: _parsed, reasoning_details: _details, reasoning, tool_calls: calls, ...message }) => ({
    ...message,
    // A refusal is told where the content would be.
    ...(message.refusal != null && { content: message.content ?? message.refusal, refusal: null }),
    ...(reasoning != null && { reasoning_content: message.reasoning_content ?? reasoning }),
    ...((calls === null || (calls && calls.length > 0)) && { tool_calls: calls }),
  }),
);

export const messageSchema = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), name: nameSchema, content: contentSchema }),
  /** OpenAI's newer name of the system role. */
  z.strictObject({ role: z.literal('developer'), name: nameSchema, content: contentSchema }),
  z.strictObject({ role: z.literal('user'), name: nameSchema, content: contentSchema }),
  assistantMessageSchema,
  z.strictObject({
    role: z.literal('tool'),
    name: nameSchema,
    content: contentSchema,
    tool_call_id: z.string().min(1).max(256),
  }),
]);

export const toolSchema = z.strictObject({
  type: z.literal('function'),
  function: z.strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9_-]+$/)
      .max(toolNameCharactersMax),
    description: z.string().nullish(),
    parameters: schemaSchema.nullish(),
    /** True if the arguments of every call are held to the parameters' schema. */
    strict: z.boolean().nullish(),
  }),
});

export const toolChoiceSchema = z.union([
  z.enum(['none', 'auto', 'required']),
  z.strictObject({
    type: z.literal('function'),
    function: z.strictObject({ name: calledNameSchema }),
  }),
]);

export type Message = z.infer<typeof messageSchema>;

export type Tool = z.infer<typeof toolSchema>;

export type ToolCall = z.infer<typeof toolCallSchema>;
