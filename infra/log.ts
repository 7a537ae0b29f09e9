/** A program tells its operator what happened by lines of its log. */

/** `warn` is for what an operator should look into, `error` for what costs money or data. */
export type LogLevel = 'info' | 'warn' | 'error';

export type Log = (
  level: LogLevel,
  /** The event's name, which operators search for. */
  event: string,
  fields: Readonly<Record<string, unknown>>,
) => void;
