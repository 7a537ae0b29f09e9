/** OpenAI's errors; a worker's parameters are named as they are called here. */
import { ApiError } from '../../errors.ts';
import type { ErrorShape } from '../dialect.ts';
import { errors as openAiErrors } from '../openai/errors.ts';
import { unsupported } from './unsupported.ts';

const renamed: readonly (readonly [RegExp, string])[] = [
  [/\bresponse_format(\.json_schema)?/g, 'text.format'],
  [/\bmax_(completion_)?tokens\b/g, 'max_output_tokens'],
  [/\breasoning_effort\b/g, 'reasoning.effort'],
];

export const errors: ErrorShape = {
  ...openAiErrors,
  body(error, requestId) {
    const { code, headers, details } = error;
    // A parameter of another API is refused by the name that the client gave it.
    if (error.param !== null && Object.hasOwn(unsupported, error.param)) {
      return openAiErrors.body(error, requestId);
    }
    const message = inOurNames(error.message);
    const param = error.param === null ? null : inOurNames(error.param);
    const stated = { ...(param !== null && { param }), headers, ...(details && { details }) };
    return openAiErrors.body(new ApiError(code, message, stated), requestId);
  },
};

function inOurNames(text: string): string {
  return renamed.reduce((named, [pattern, name]) => named.replaceAll(pattern, name), text);
}
