/** Anthropic's protocol, below /anthropic. */
import type { Dialect, InferenceRoute, TokenCountRoute } from '../dialect.ts';
import { createAnthropicAnswer } from './answer.ts';
import type { AnswerOptions } from './answer.ts';
import { errors } from './errors.ts';
import { createAnthropicEncoder } from './events.ts';
import { countTokensRequestExamples, messagesRequestExamples } from './examples.ts';
import { models } from './models.ts';
import { countTokensRequestSchema, messagesRequestSchema } from './request-schemas.ts';
import { parseCountRequest, parseMessagesRequest } from './requests.ts';
import { messageSchema, tokenCountSchema } from './response-schemas.ts';

const messages: InferenceRoute<AnswerOptions> = {
  name: 'messages',
  path: '/anthropic/v1/messages',
  aliases: [],
  summary: "Message, in Anthropic's protocol",
  description:
    'Prefixes are cached automatically, for all users of the account. What is accepted and has ' +
    'no effect: cache_control, context_management, metadata, speed, mcp_servers, container, ' +
    'diagnostics, fallbacks, fallback_credit_token, betas, user_profile_id, budget_tokens, ' +
    'block_binding and task_budget; of tools eager_input_streaming, defer_loading, ' +
    'input_examples and allowed_callers. A thread is refused with the code that makes clients go ' +
    'on without. tool_choice, strict tools and output_config.format are kept by masking tokens, ' +
    'as chat completions say; output_config.effort turns thinking on unless thinking says.',
  requestSchema: messagesRequestSchema,
  requestExamples: messagesRequestExamples,
  answerSchema: messageSchema,
  parse: parseMessagesRequest,
  format(options, { requestId, model }) {
    const head = { id: `msg_${requestId}`, model };
    return {
      encoder: () => createAnthropicEncoder(head, requestId, options),
      builder: () => createAnthropicAnswer(head, options),
      statesEachCount: false,
    };
  },
};

const countTokens: TokenCountRoute = {
  name: 'count',
  path: '/anthropic/v1/messages/count_tokens',
  aliases: [],
  summary: "Tokens of a prompt, in Anthropic's protocol",
  description:
    'Counted by a worker, exactly as a message of the same fields would be. Free; counts as one ' +
    'request of the limits. Where no worker can count, the answer is an upper bound and says so ' +
    'in x-sift-token-count.',
  requestSchema: countTokensRequestSchema,
  requestExamples: countTokensRequestExamples,
  answerSchema: tokenCountSchema,
  parse: parseCountRequest,
  toAnswer: (tokens) => ({ input_tokens: tokens }),
};

export const anthropic: Dialect = {
  pathPrefixes: ['/anthropic/'],
  requestIdHeaders: ['x-request-id', 'request-id'],
  errors,
  inferences: [messages],
  tokenCounts: [countTokens],
  models,
};
