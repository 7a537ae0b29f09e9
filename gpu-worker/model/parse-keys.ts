/** Parses the keys of a config.json by a family's strict schema. */
import type { z } from 'zod';
import { ConfigError } from './config-error.ts';

/** A key that the family's schema does not have. */
export class UnknownKeyError extends ConfigError {
  override name = 'UnknownKeyError';
}

/** @throws ConfigError that names the key. */
export function parseKeys<T>(schema: z.ZodType<T>, json: unknown): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  if (issue?.code === 'unrecognized_keys') {
    const key = [...issue.path.map(String), issue.keys[0]].join('.');
    throw new UnknownKeyError(
      `${key} is not a key that this engine knows; it may change the model, so it is refused`,
    );
  }
  throw new ConfigError(describeIssue(issue));
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return 'config.json is not a model configuration';
  const path = issue.path.map(String).join('.');
  return path === '' ? `config.json: ${issue.message}` : `${path}: ${issue.message}`;
}
