/**
 * Turns a request for our workers into the one that foreign engines, vLLM and SGLang, understand.
 */
import { z } from 'zod';
import { responseFormatSchema, schemaOfFormat } from '../../gpu-worker/protocol/response-format.ts';
import type { ResponseFormat } from '../../gpu-worker/protocol/response-format.ts';
import { chatCompletionRequestSchema } from '../../gpu-worker/protocol/requests.ts';

const thinkingFields = z.object({
  thinking: chatCompletionRequestSchema.shape.thinking,
  reasoning_effort: chatCompletionRequestSchema.shape.reasoning_effort,
  chat_template_kwargs: z
    .looseObject({ thinking: z.boolean().nullish(), enable_thinking: z.boolean().nullish() })
    .nullish(),
});

const messagesSchema = z.array(
  z.looseObject({ reasoning_content: z.string().nullish().optional() }),
);

/** Engines read the reasoning of earlier turns under one of two names. */
function withBothNames(message: z.infer<typeof messagesSchema>[number]) {
  const { reasoning_content: reasoning } = message;
  return reasoning ? { ...message, reasoning } : message;
}

/**
 * They know thinking as a variable of the chat template, and three levels of effort; all else is in
 * OpenAI's terms already.
 */
export function toForeignRequest(
  body: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const {
    thinking: _thinking,
    reasoning_effort: _effort,
    response_format: format,
    messages,
    ...others
  } = body;
  const asked = thinkingFields.parse(body);
  const effort = asked.reasoning_effort ?? null;
  const byType = asked.thinking ? asked.thinking.type !== 'disabled' : null;
  const byEffort = effort === null ? null : effort !== 'none';
  const { chat_template_kwargs: kwargs } = asked;
  const thinks = byType ?? kwargs?.thinking ?? kwargs?.enable_thinking ?? byEffort;
  return {
    ...others,
    ...(messages != null && { messages: messagesSchema.parse(messages).map(withBothNames) }),
    ...(format != null && { response_format: formatAsOpenAi(responseFormatSchema.parse(format)) }),
    ...(thinks !== null && {
      // DeepSeek's templates read the one name and GLM's the other.
      chat_template_kwargs: { ...kwargs, thinking: thinks, enable_thinking: thinks },
    }),
    ...(effort !== null && thinks && effort !== 'none' && { reasoning_effort: levels[effort] }),
  };
}

/** OpenAI's spelling, which all of them read: a schema has a name and stands in `json_schema`. */
function formatAsOpenAi(format: ResponseFormat): object {
  const stated = schemaOfFormat(format);
  if (stated === null) return { type: format.type };
  const { name, description, strict } =
    format.type === 'json_schema' ? (format.json_schema ?? format) : {};
  return {
    type: 'json_schema',
    json_schema: {
      name: name ?? 'answer',
      schema: stated.schema,
      ...(description != null && { description }),
      ...(strict != null && { strict }),
    },
  };
}

/** DeepSeek's own mapping of the words that others use. */
const levels = {
  minimal: 'low',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'high',
  max: 'high',
  ultra: 'high',
} as const;
