/** OpenAI's Responses API, at /v1/responses and, for base URLs without /v1, at /responses. */
import type { Dialect, InferenceRoute, TokenCountRoute } from '../dialect.ts';
import { createResponsesAnswer } from './answer.ts';
import type { AnswerOptions } from './answer.ts';
import { errors } from './errors.ts';
import { createResponsesEncoder } from './events.ts';
import { inputTokensRequestExamples, requestExamples } from './examples.ts';
import { inputTokensRequestSchema, responsesRequestSchema } from './request-schemas.ts';
import { parseInputTokensRequest, parseResponsesRequest } from './requests.ts';
import { inputTokensSchema, responseSchema } from './response-schemas.ts';

const responses: InferenceRoute<AnswerOptions> = {
  name: 'responses',
  path: '/v1/responses',
  aliases: ['/responses'],
  summary: 'Response',
  description:
    "OpenAI's Responses API. A response is stored if store is true, and without store only where " +
    'the operator has chosen that; it is kept for 30 days after its last use, and ' +
    'previous_response_id and item_reference name it. Only ' +
    'functions can be called. text.format, a tool_choice of required or of one function, and ' +
    'strict functions are kept by masking tokens, as chat completions say. Reasoning is shown as ' +
    'it is, in the content of its item, or with reasoning.summary as its summary; its ' +
    'encrypted_content is the same text in another form. A stream ends with response.completed, ' +
    'response.incomplete or response.failed. prompt_cache_key and metadata have no effect on the ' +
    'answer. instructions, tools and format are repeated if they have at most 65,536 characters.',
  requestSchema: responsesRequestSchema,
  requestExamples,
  answerSchema: responseSchema,
  namesStored: true,
  parse: parseResponsesRequest,
  format: (options, head) => ({
    encoder: () => createResponsesEncoder(head, options),
    builder: () => createResponsesAnswer(head, options),
    statesEachCount: true,
  }),
};

const inputTokens: TokenCountRoute = {
  name: 'response-tokens',
  path: '/v1/responses/input_tokens',
  aliases: ['/responses/input_tokens'],
  summary: 'Tokens of the prompt of a response',
  description:
    'Counted by a worker, exactly as a response of the same fields would be. Free; counts as one ' +
    'request of the limits. Where no worker can count, the answer is an upper bound and says so ' +
    'in x-sift-token-count.',
  requestSchema: inputTokensRequestSchema,
  requestExamples: inputTokensRequestExamples,
  answerSchema: inputTokensSchema,
  namesStored: true,
  parse: parseInputTokensRequest,
  toAnswer: (tokens) => ({ object: 'response.input_tokens', input_tokens: tokens }),
};

export const responsesDialect: Dialect = {
  pathPrefixes: ['/v1/responses', '/responses'],
  requestIdHeaders: ['x-request-id'],
  errors,
  inferences: [responses],
  tokenCounts: [inputTokens],
  models: null,
};
