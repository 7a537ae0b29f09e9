/**
 * Turns JSON into a typed request, or into the first parameter at fault and the sentence about it.
 * Edge and workers have error tables of their own, with the same codes for these faults.
 */
import type { core, z } from 'zod';

/** Says why a known parameter is not supported; null of one that nobody knows. */
export type ReasonUnsupported = (param: string) => string | null;

export interface Fault {
  readonly code:
    | 'missing_required_parameter'
    | 'unknown_parameter'
    | 'unsupported_parameter'
    | 'invalid_type'
    | 'invalid_value';
  /** The parameter at fault, such as `messages[0].role`. */
  readonly param: string;
  readonly message: string;
  /** The types that a value of the wrong type may have, where a union allows several. */
  readonly expected: readonly string[];
}

export type Parsed<Value> =
  | { readonly isValid: true; readonly value: Value }
  | { readonly isValid: false; readonly fault: Fault };

/**
 * Parses an object; of several faults, the first one counts. A known name that is not supported
 * goes before a missing one, since its reason may say where the value belongs.
 */
export function parseFields<Schema extends z.ZodType>(
  schema: Schema,
  json: object,
  reasonUnsupported: ReasonUnsupported,
): Parsed<z.infer<Schema>> {
  const result = schema.safeParse(json, { reportInput: true });
  if (result.success) return { isValid: true, value: result.data };
  const { issues } = result.error;
  const [issue] = issues;
  if (issue === undefined) throw new Error('a request is invalid without a fault');
  const first = faultOf(issue, [], reasonUnsupported);
  if (first.code !== 'missing_required_parameter') return { isValid: false, fault: first };
  const misplaced = issues
    .flatMap((each) => (each.code === 'unrecognized_keys' ? unrecognizedOf(each) : []))
    .find((param) => reasonUnsupported(param) !== null);
  if (misplaced === undefined) return { isValid: false, fault: first };
  return { isValid: false, fault: unrecognized(misplaced, reasonUnsupported) };
}

/** Looks a parameter up in a table whose names may hold `[]`, for an element of a list. */
export function reasonIn(reasons: Readonly<Record<string, string>>, param: string): string | null {
  const pattern = param.replaceAll(/\[\d+\]/g, '[]');
  return Object.hasOwn(reasons, pattern) ? (reasons[pattern] ?? null) : null;
}

export function invalidMessage(param: string, found: string): string {
  return `Invalid '${param}': ${found}.`;
}

type Path = readonly PropertyKey[];

function faultOf(issue: core.$ZodIssue, parent: Path, reasonUnsupported: ReasonUnsupported): Fault {
  const path = [...parent, ...issue.path];
  const param = parameterName(path);
  if (issue.code === 'unrecognized_keys') {
    return unrecognized(parameterName([...path, ...issue.keys.slice(0, 1)]), reasonUnsupported);
  }
  if (issue.code === 'invalid_union') {
    const [nearest, ...others] = nearestBranches(issue.errors);
    if (nearest) {
      const fault = faultOf(nearest, path, reasonUnsupported);
      const expected = others.length > 0 ? expectedTypes([nearest, ...others]) : [];
      return fault.code === 'invalid_type' ? { ...fault, expected } : fault;
    }
    if (lacks(issue.input, path.at(-1))) return missing(param);
  }
  if (issue.input === undefined) return missing(param);
  const code = issue.code === 'invalid_type' ? 'invalid_type' : 'invalid_value';
  return { code, param, message: invalidMessage(param, issue.message), expected: [] };
}

function unrecognizedOf({ path, keys }: core.$ZodIssueUnrecognizedKeys): string[] {
  return keys.map((key) => parameterName([...path, key]));
}

function unrecognized(param: string, reasonUnsupported: ReasonUnsupported): Fault {
  const reason = reasonUnsupported(param);
  const found =
    reason === null
      ? { code: 'unknown_parameter' as const, message: `Unknown parameter: '${param}'.` }
      : {
          code: 'unsupported_parameter' as const,
          message: `'${param}' is not supported: ${reason}.`,
        };
  return { ...found, param, expected: [] };
}

function missing(param: string): Fault {
  const message = `Missing required parameter: '${param}'.`;
  return { code: 'missing_required_parameter', param, message, expected: [] };
}

/**
 * Tells whether a union is told apart by this property, as a message by its role, and it is absent.
 */
function lacks(input: unknown, key: PropertyKey | undefined): boolean {
  const isObject = typeof input === 'object' && input !== null;
  return isObject && key !== undefined && !Object.hasOwn(input, key);
}

/**
 * Finds the branches of a union that the value fits best: their first complaint lies deepest, since
 * the branch for another type complains at the top already. All that are returned lie equally deep.
 */
function nearestBranches(
  branches: readonly (readonly core.$ZodIssue[])[],
): readonly core.$ZodIssue[] {
  const complaints = branches.flatMap((issues) => issues.slice(0, 1));
  const deepest = Math.max(...complaints.map(depth));
  return complaints.filter((issue) => depth(issue) === deepest);
}

/** A value of the right type that is out of range fits better than one of the wrong type. */
function depth(issue: core.$ZodIssue): number {
  return issue.path.length * 2 + (issue.code === 'invalid_type' ? 0 : 1);
}

function expectedTypes(issues: readonly core.$ZodIssue[]): string[] {
  return [...new Set(issues.flatMap((issue) => ('expected' in issue ? [issue.expected] : [])))];
}

/** Writes `['messages', 0, 'role']` as `messages[0].role`. */
function parameterName(path: Path): string {
  return path.reduce<string>((name, part) => {
    if (typeof part === 'number') return `${name}[${part}]`;
    return name === '' ? String(part) : `${name}.${String(part)}`;
  }, '');
}
