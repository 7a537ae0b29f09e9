/** Errors as Anthropic's clients know them. */
import type { ErrorStatus } from '../../../gpu-worker/protocol/errors.ts';
import type { ApiError, Overflow } from '../../errors.ts';
import type { ErrorShape } from '../dialect.ts';
import { errorSchema } from './response-schemas.ts';

/** Anthropic's `type` of an error, which its status decides. */
const types: Record<ErrorStatus, string> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  408: 'invalid_request_error',
  409: 'invalid_request_error',
  413: 'request_too_large',
  415: 'invalid_request_error',
  422: 'invalid_request_error',
  429: 'rate_limit_error',
  499: 'invalid_request_error',
  500: 'api_error',
  502: 'api_error',
  503: 'overloaded_error',
};

export const errors: ErrorShape = { name: 'AnthropicError', schema: errorSchema, body: errorBody };

export function errorBody(error: ApiError, requestId: string): object {
  const { status, code, details } = error;
  const isOverflow = code === 'context_length_exceeded';
  return {
    type: 'error',
    error: {
      type: types[status],
      message: isOverflow ? overflowMessage(error) : inMessageTerms(error.message),
      ...(details && { details }),
    },
    request_id: requestId,
  };
}

const noNumbers: Overflow = { promptTokens: 0, outputTokens: null, contextTokens: 0 };

/** Anthropic's clients recognize these sentences by their words, and shorten by their numbers. */
function overflowMessage({ overflow, message }: ApiError): string {
  const { promptTokens, outputTokens, contextTokens } = overflow ?? noNumbers;
  if (promptTokens > contextTokens) {
    return `prompt is too long: ${promptTokens} tokens > ${contextTokens} maximum`;
  }
  if (outputTokens === null) return `prompt is too long: ${message}`;
  return (
    'input length and `max_tokens` exceed context limit: ' +
    `${promptTokens} + ${outputTokens} > ${contextTokens}, ` +
    'decrease input length or `max_tokens` and try again'
  );
}

/** A worker names the parameters of the chat completion that the message became. */
function inMessageTerms(message: string): string {
  return message
    .replaceAll(/tools\[(\d+)\]\.function\.parameters/g, 'tools[$1].input_schema')
    .replaceAll(/tools\[(\d+)\]\.function/g, 'tools[$1]')
    .replaceAll('response_format.json_schema', 'output_config.format')
    .replaceAll('tool_choice.function', 'tool_choice')
    .replaceAll('reasoning_effort', 'output_config.effort');
}
