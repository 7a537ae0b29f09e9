/** From JSON to a typed request, or to the error that names the first parameter at fault. */
import type { z } from 'zod';
import { parseFields, reasonIn } from '../../gpu-worker/protocol/parse.ts';
import { isNestedDeeper, nestingMax } from '../engines/bounded-json.ts';
import { ApiError } from '../errors.ts';

/** Known parameters that are refused, each with its reason; `[]` in a name stands for any index. */
export type Reasons = Readonly<Record<string, string>>;

/** @throws ApiError 400 or 422 (see the error table) naming the parameter at fault. */
export function parseRequest<Schema extends z.ZodType>(
  schema: Schema,
  json: unknown,
  unsupported: Reasons = {},
): z.infer<Schema> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ApiError('invalid_json', 'The request body must be a JSON object.');
  }
  if (isNestedDeeper(json, nestingMax)) {
    throw new ApiError('invalid_value', `The request is nested deeper than ${nestingMax} levels.`);
  }
  const parsed = parseFields(schema, withoutNulls(json, unsupported), (param) =>
    reasonIn(unsupported, param),
  );
  if (parsed.isValid) return parsed.value;
  const { code, message, param } = parsed.fault;
  throw new ApiError(code, message, { param });
}

/** Leaves out parameters that are null and not supported: null means absent. */
function withoutNulls(json: object, unsupported: Reasons): object {
  const asked = Object.entries(json);
  const kept = asked.filter(
    ([key, value]) => value !== null || reasonIn(unsupported, key) === null,
  );
  return kept.length === asked.length ? json : Object.fromEntries(kept);
}
