/** From JSON to a typed request, or to the error that names the first parameter at fault. */
import type { z } from 'zod';
import { parseFields } from '../../gpu-worker/protocol/parse.ts';
import { isNestedDeeper, nestingMax } from '../engines/bounded-json.ts';
import { ApiError } from '../errors.ts';
import { reasonUnsupported } from '../dialects/unsupported.ts';

/** @throws ApiError 400 or 422 (see the error table) naming the parameter. */
export function parseRequest<Schema extends z.ZodType>(
  schema: Schema,
  json: unknown,
  api: 'openai' | 'anthropic' = 'openai',
): z.infer<Schema> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ApiError('invalid_json', 'The request body must be a JSON object.');
  }
  if (isNestedDeeper(json, nestingMax)) {
    throw new ApiError('invalid_value', `The request is nested deeper than ${nestingMax} levels.`);
  }
  const parsed = parseFields(schema, withoutNulls(json, api), (param) =>
    reasonUnsupported(param, api),
  );
  if (parsed.isValid) return parsed.value;
  const { code, message, param } = parsed.fault;
  throw new ApiError(code, message, { param });
}

/** null means absent, also for a parameter that is not supported. */
function withoutNulls(json: object, api: 'openai' | 'anthropic'): object {
  const asked = Object.entries(json);
  const kept = asked.filter(
    ([key, value]) => value !== null || reasonUnsupported(key, api) === null,
  );
  return kept.length === asked.length ? json : Object.fromEntries(kept);
}
