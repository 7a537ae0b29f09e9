/** The body of every error that a worker answers. */
import { z } from 'zod';
import { tokenCount } from './fields.ts';

/** The numbers of a request that exceeds the context. */
export const overflowSchema = z.object({
  /** Tokens counted; of a text that is refused before all of it is tokenised, those so far. */
  prompt_tokens: tokenCount,
  /**
   * Tokens that the request asks for; null if the prompt alone is too long or it states no maximum.
   */
  output_tokens: tokenCount.nullable(),
  context_tokens: tokenCount,
});

export const errorBodySchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    /** The parameter at fault, such as `messages[0].role`. */
    param: z.string().nullable(),
    code: z.string().nullable(),
    /** Present beside the code `context_length_exceeded`. */
    overflow: overflowSchema.optional(),
  }),
});

export type ErrorBody = z.infer<typeof errorBodySchema>;

/** OpenAI's `type` of an error, which its status decides; edge and workers say the same. */
export const openAiErrorTypes = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'insufficient_balance',
  403: 'permission_error',
  404: 'invalid_request_error',
  405: 'invalid_request_error',
  408: 'invalid_request_error',
  409: 'invalid_request_error',
  413: 'invalid_request_error',
  415: 'invalid_request_error',
  422: 'invalid_request_error',
  429: 'rate_limit_error',
  499: 'invalid_request_error',
  500: 'server_error',
  502: 'server_error',
  503: 'server_error',
} as const;
export type ErrorStatus = keyof typeof openAiErrorTypes;
