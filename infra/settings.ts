/**
 * Settings of a program, as a table with a row for each: flags of the command line go over
 * environment variables, and both over the defaults that the schemas state. Secrets have no flags,
 * because command lines are visible to all. Help texts and the tables in docs/ are made of the same
 * rows.
 */
import type { z } from 'zod';
import { UsageError, UserError } from './user-error.ts';

export interface Setting {
  /** Its environment variable, or its binding in workerd. */
  readonly env: string;
  /** Its flag without the dashes; the variable alone sets it where there is none. */
  readonly flag?: string;
  /** A flag that needs no value: alone it means true. */
  readonly isSwitch?: boolean;
  readonly help: string;
  /** Says the default in words, where the schema's own is none or depends on the machine. */
  readonly defaultText?: string;
  readonly schema: z.ZodType;
}

export type Settings = Readonly<Record<string, Setting>>;

export type SettingsOf<Table extends Settings> = {
  readonly [Name in keyof Table]: z.output<Table[Name]['schema']>;
};

/** A value that is no text (one of a worker's other bindings) is no setting. */
export type Env = Readonly<Record<string, unknown>>;

/** The environment of this process, which nothing else reads for its settings. */
export const environment = (): Readonly<Record<string, string | undefined>> => process.env;

/**
 * @param given.flags by the names of the table.
 * @throws UsageError that names the flag at fault, or UserError that names the variable.
 */
export function readSettings<Table extends Settings>(
  table: Table,
  given: { readonly flags?: Readonly<Record<string, unknown>>; readonly env: Env },
): SettingsOf<Table> {
  const read: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries(table)) {
    const fromFlag = given.flags?.[name];
    // An empty variable counts as not set: that is how compose files leave one out.
    const fromEnv = given.env[setting.env] || undefined;
    const parsed = setting.schema.safeParse(fromFlag ?? fromEnv);
    if (!parsed.success) {
      const reason = reasonOf(parsed.error);
      const isFlag = fromFlag !== undefined || fromEnv === undefined;
      if (isFlag && setting.flag !== undefined) {
        throw new UsageError(`--${setting.flag}: ${reason}`);
      }
      throw new UserError(`${setting.env}: ${reason}`);
    }
    read[name] = parsed.data;
  }
  // Every setting was parsed by its own schema just above.
  return read as SettingsOf<Table>;
}

/** Says what a value has to be; a schema's own sentences stay as they are. */
function reasonOf({ issues: [issue] }: z.ZodError): string {
  if (issue === undefined) return 'is no value of it';
  const isOwn = !/^(Invalid (input|option): |Too (small|big): expected number )/.test(
    issue.message,
  );
  if (isOwn) return issue.message;
  switch (issue.code) {
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}`;
    case 'invalid_type':
      return issue.expected === 'int' ? 'must be a whole number' : `must be a ${issue.expected}`;
    case 'too_small':
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      return `must be at most ${issue.maximum}`;
    default:
      return issue.message;
  }
}

/** Says for people what a setting is where nobody sets it; empty if it then has no value. */
export function defaultTextOf({ defaultText, schema }: Setting): string {
  if (defaultText !== undefined) return defaultText;
  const { data } = schema.safeParse(undefined);
  return data === undefined || (Array.isArray(data) && data.length === 0) ? '' : String(data);
}
