/** From JSON to a typed request, or to the error that names the first parameter at fault. */
import type { core, z } from 'zod';
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
  const result = schema.safeParse(withoutNulls(json, api), { reportInput: true });
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw issue
    ? toError(issue, [], api)
    : new ApiError('invalid_value', 'The request is not valid.');
}

/** null means absent, also for a parameter that is not supported. */
function withoutNulls(json: object, api: 'openai' | 'anthropic'): object {
  const asked = Object.entries(json);
  const kept = asked.filter(
    ([key, value]) => value !== null || reasonUnsupported(key, api) === null,
  );
  return kept.length === asked.length ? json : Object.fromEntries(kept);
}

type Path = readonly PropertyKey[];

function toError(issue: core.$ZodIssue, parent: Path, api: 'openai' | 'anthropic'): ApiError {
  const path = [...parent, ...issue.path];
  if (issue.code === 'unrecognized_keys') return refuse(name([...path, issue.keys[0] ?? '']), api);
  if (issue.code === 'invalid_union') {
    const branch = bestBranch(issue.errors);
    if (branch) return toError(branch, path, api);
    if (lacks(issue.input, path.at(-1))) return missing(name(path));
  }
  const param = name(path);
  if (issue.input === undefined) return missing(param);
  const code = issue.code === 'invalid_type' ? 'invalid_type' : 'invalid_value';
  return new ApiError(code, `Invalid '${param}': ${issue.message}.`, { param });
}

/** Of a union that is told apart by a property, such as a message by its role. */
function lacks(input: unknown, key: PropertyKey | undefined): boolean {
  const isObject = typeof input === 'object' && input !== null;
  return isObject && key !== undefined && !Object.hasOwn(input, key);
}

function missing(param: string): ApiError {
  return new ApiError('missing_required_parameter', `Missing required parameter: '${param}'.`, {
    param,
  });
}

function refuse(param: string, api: 'openai' | 'anthropic'): ApiError {
  const reason = reasonUnsupported(param, api);
  return reason === null
    ? new ApiError('unknown_parameter', `Unknown parameter: '${param}'.`, { param })
    : new ApiError('unsupported_parameter', `'${param}' is not supported: ${reason}.`, { param });
}

/** The branch of a union that the value came closest to: the one that complains the deepest. */
function bestBranch(branches: readonly (readonly core.$ZodIssue[])[]): core.$ZodIssue | undefined {
  let best: core.$ZodIssue | undefined;
  for (const [issue] of branches) {
    if (issue && (best === undefined || closeness(issue) > closeness(best))) best = issue;
  }
  return best;
}

/** A value of the right type that is out of range came closer than one of the wrong type. */
function closeness(issue: core.$ZodIssue): number {
  return 2 * issue.path.length + (issue.code === 'invalid_type' ? 0 : 1);
}

/** `['messages', 0, 'role']` as `messages[0].role`. */
function name(path: Path): string {
  let text = '';
  for (const part of path) {
    text += typeof part === 'number' ? `[${part}]` : `${text === '' ? '' : '.'}${String(part)}`;
  }
  return text;
}
