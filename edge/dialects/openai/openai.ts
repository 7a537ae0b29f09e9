/**
 * OpenAI's protocol with DeepSeek's additions. Paths without /v1 and below /beta are DeepSeek's.
 */
import type { Dialect, InferenceRoute } from '../dialect.ts';
import { createChatAnswer } from './chat-answer.ts';
import { errors } from './errors.ts';
import { createOpenAiEncoder } from './events.ts';
import { chatRequestExamples, textRequestExamples } from './examples.ts';
import { models } from './models.ts';
import { chatRequestSchema, shownTextRequestSchema } from './request-schemas.ts';
import { parseChatRequest, parseTextRequest } from './requests.ts';
import type { AnswerOptions } from './requests.ts';
import { chatCompletionSchema, completionSchema } from './response-schemas.ts';
import { createTextAnswer } from './text-answer.ts';

const chatCompletions: InferenceRoute<AnswerOptions> = {
  name: 'chat',
  path: '/v1/chat/completions',
  aliases: ['/chat/completions', '/beta/chat/completions'],
  summary: 'Chat completion',
  description:
    "OpenAI's chat completions with DeepSeek's additions. Usage has both dialects' fields and " +
    'cost_nano_usd. user_id keeps the end users of an account apart in caches and in scheduling. ' +
    'metadata, prompt_cache_key and the names of messages are accepted and have no effect. ' +
    'response_format, a tool_choice of required or of one function, and strict functions are ' +
    'kept by masking tokens: an answer that ends is JSON of the schema, and one that was cut has ' +
    'the finish_reason length. A keyword of a schema that cannot be kept is refused by name; ' +
    'annotations and unknown formats have no effect. A seed beyond 2^53 is folded into fewer ' +
    'bits. Reasoning, if any, comes before and is free, also before a call that is forced. ' +
    'reasoning_effort turns thinking on (none: off) unless thinking says. A model that knows ' +
    'several depths of thinking takes the nearest; others know one.',
  requestSchema: chatRequestSchema,
  requestExamples: chatRequestExamples,
  answerSchema: chatCompletionSchema,
  parse: parseChatRequest,
  format(options, { requestId, model }) {
    const tier = options.tier === null ? {} : { service_tier: options.tier };
    const head = { id: `chatcmpl-${requestId}`, model, ...tier };
    return {
      encoder: () => createOpenAiEncoder(head, options),
      builder: () => createChatAnswer(head),
      statesEachCount: options.runningUsage,
    };
  },
};

const completions: InferenceRoute<AnswerOptions> = {
  name: 'text',
  path: '/v1/completions',
  aliases: ['/completions', '/beta/completions'],
  summary: 'Completion',
  description: 'Text in, text out; with a suffix it fills in the middle.',
  requestSchema: shownTextRequestSchema,
  requestExamples: textRequestExamples,
  answerSchema: completionSchema,
  parse: parseTextRequest,
  format(options, { requestId, model }) {
    const head = { id: `cmpl-${requestId}`, model };
    return {
      encoder: () => createOpenAiEncoder(head, options),
      builder: () => createTextAnswer(head),
      statesEachCount: options.runningUsage,
    };
  },
};

export const openAi: Dialect = {
  pathPrefixes: ['/'],
  requestIdHeaders: ['x-request-id'],
  errors,
  inferences: [chatCompletions, completions],
  tokenCounts: [],
  models,
};
