/** Errors as OpenAI's and DeepSeek's clients know them. */
import { openAiErrorTypes } from '../../../gpu-worker/protocol/errors.ts';
import type { ApiError } from '../../errors.ts';
import type { ErrorShape } from '../dialect.ts';
import { errorSchema } from './response-schemas.ts';

export const errors: ErrorShape = { name: 'Error', schema: errorSchema, body: errorBody };

export function errorBody({ message, code, param, status, details }: ApiError): object {
  const type = openAiErrorTypes[status];
  return { error: { message, type, param, code, ...(details && { details }) } };
}
