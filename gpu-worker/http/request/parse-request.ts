/**
 * Turns JSON into a typed request, or into OpenAI's error that names the first parameter at fault.
 */
import type { z } from 'zod';
import { invalidMessage, parseFields } from '../../protocol/parse.ts';
import { ApiError } from '../api-error.ts';
import { reasonUnsupported } from './unsupported.ts';

/** @throws ApiError 400 naming the parameter. */
export function parseRequest<Schema extends z.ZodType>(
  schema: Schema,
  json: unknown,
): z.infer<Schema> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ApiError('invalid_type', 'The request body must be a JSON object.');
  }
  const parsed = parseFields(schema, json, reasonUnsupported);
  if (parsed.isValid) return parsed.value;
  const { code, message, param, expected } = parsed.fault;
  if (expected.length === 0) throw new ApiError(code, message, { param });
  throw new ApiError(code, invalidMessage(param, `expected ${expected.join(' or ')}`), { param });
}
