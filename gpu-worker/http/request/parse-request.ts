/** Turns zod's findings into OpenAI's errors, which name one parameter: the first at fault. */
import type { core, z } from 'zod';
import { ApiError } from '../errors.ts';
import { reasonUnsupported } from './unsupported.ts';

/**
 * Parses a request body.
 * @throws ApiError 400 naming the parameter.
 */
export function parseRequest<Schema extends z.ZodType>(
  schema: Schema,
  body: unknown,
): z.infer<Schema> {
  const result = schema.safeParse(body, { reportInput: true });
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw issue ? toApiError(issue, []) : new ApiError('invalid_value', 'the request is not valid');
}

type Path = readonly PropertyKey[];

function toApiError(issue: core.$ZodIssue, parent: Path): ApiError {
  const path = [...parent, ...issue.path];
  const param = parameterName(path);
  switch (issue.code) {
    case 'unrecognized_keys': {
      const unknown = parameterName([...path, issue.keys[0] ?? '']);
      const reason = reasonUnsupported(unknown);
      return reason === null
        ? new ApiError('unknown_parameter', `Unknown parameter: '${unknown}'.`, { param: unknown })
        : new ApiError('unsupported_parameter', `'${unknown}' is not supported: ${reason}.`, {
            param: unknown,
          });
    }
    case 'invalid_union': {
      const [nearest, ...others] = nearestBranches(issue.errors);
      if (!nearest) return unionWithoutBranch(issue, param);
      const error = toApiError(nearest, path);
      if (error.code !== 'invalid_type' || others.length === 0) return error;
      const expected = [nearest, ...others].map((each) => 'expected' in each && each.expected);
      return invalid(
        'invalid_type',
        parameterName([...path, ...nearest.path]),
        `expected ${[...new Set(expected)].join(' or ')}`,
      );
    }
    case 'invalid_type':
      if (issue.input === undefined) return missing(param);
      return invalid('invalid_type', param, issue.message);
    default:
      if (issue.input === undefined) return missing(param);
      return invalid('invalid_value', param, issue.message);
  }
}

function missing(param: string): ApiError {
  return param === ''
    ? new ApiError('invalid_type', 'The request body must be a JSON object.')
    : new ApiError('missing_required_parameter', `Missing required parameter: '${param}'.`, {
        param,
      });
}

function invalid(code: 'invalid_type' | 'invalid_value', param: string, found: string): ApiError {
  if (param === '') return new ApiError(code, 'The request body must be a JSON object.');
  return new ApiError(code, `Invalid '${param}': ${found}.`, { param });
}

/** A discriminated union, such as a message by its role, that has no branch for the value. */
function unionWithoutBranch(issue: core.$ZodIssueInvalidUnion, param: string): ApiError {
  const { input, path } = issue;
  const key = path.at(-1);
  const isObject = typeof input === 'object' && input !== null;
  if (isObject && key !== undefined && !Object.hasOwn(input, key)) return missing(param);
  return invalid('invalid_value', param, issue.message);
}

/**
 * Of a union's branches those that the value fits best: their first complaint lies deepest, since
 * the branch for another type complains at the top already. All that are returned lie equally deep.
 */
function nearestBranches(
  branches: readonly (readonly core.$ZodIssue[])[],
): readonly core.$ZodIssue[] {
  const complaints = branches.flatMap((issues) => issues.slice(0, 1));
  const deepest = Math.max(...complaints.map(depth));
  return complaints.filter((issue) => depth(issue) === deepest);
}

function depth(issue: core.$ZodIssue): number {
  // A value of the right type that is out of range fits better than one of the wrong type.
  return issue.path.length * 2 + (issue.code === 'invalid_type' ? 0 : 1);
}

/** `['messages', 0, 'role']` as `messages[0].role`. */
function parameterName(path: Path): string {
  return path.reduce<string>((name, part) => {
    if (typeof part === 'number') return `${name}[${part}]`;
    return name === '' ? String(part) : `${name}.${String(part)}`;
  }, '');
}
