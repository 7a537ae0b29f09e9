/** The operator's commands share this: what they are given, and how their arguments are read. */
import { InvalidArgumentError } from '@commander-js/extra-typings';
import type { Command } from '@commander-js/extra-typings';

export type Call = (
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  /** Below /admin. */
  path: string,
  /** A field that is undefined is left out. */
  body?: Readonly<Record<string, unknown>>,
) => Promise<unknown>;

/** A program to which commands are added. */
export type Program = Pick<Command, 'command'>;

export interface Operator {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Asks the operator API. @throws UserError with its error. */
  readonly call: Call;
  /** Prints the answer, for people or as JSON. */
  readonly show: (answer: Promise<unknown>) => Promise<void>;
}

/** `/tenants/a%20b/keys`: what stands in braces is encoded. */
export function pathOf(parts: TemplateStringsArray, ...values: readonly string[]): string {
  return String.raw({ raw: parts }, ...values.map(encodeURIComponent));
}

export function queryOf(values: Readonly<Record<string, string | number | undefined>>): string {
  const pairs = Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)]],
  );
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`;
}

/** Refuses text that is no number: it would be sent as null, which for a limit means none. */
export function integer(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected an integer from 0.');
}

/** Dollars as text to nano-USD, exactly. */
export function usd(text: string): number {
  const [, sign = '', dollars = '', decimals = ''] =
    /^(-?)(\d{1,7})(?:\.(\d{1,9}))?$/.exec(text) ?? [];
  if (dollars === '') {
    throw new InvalidArgumentError('Expected an amount in dollars, such as 12.50.');
  }
  const size = Number(dollars) * 1_000_000_000 + Number(decimals.padEnd(9, '0'));
  return sign === '-' ? -size : size;
}

/** Reads the amount of a credit, a payment or a price, which is no less than nothing. */
export function positiveUsd(text: string): number {
  const amount = usd(text);
  if (amount >= 0 && text !== '-0') return amount;
  throw new InvalidArgumentError('Expected an amount from 0.');
}

/** Reads a time as Unix milliseconds. Without a zone it would mean another moment elsewhere. */
export function time(text: string): number {
  const ms = Date.parse(text);
  const isIso = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/.test(text);
  if (isIso && !Number.isNaN(ms) && isDay(text.slice(0, 10))) return ms;
  throw new InvalidArgumentError('Expected a time with its zone, such as 2026-12-01T00:00:00Z.');
}

export function day(text: string): string {
  if (/^\d{4}-\d\d-\d\d$/.test(text) && isDay(text)) return text;
  throw new InvalidArgumentError('Expected a day, such as 2026-12-01.');
}

export function month(text: string): string {
  if (/^[1-9]\d{3}-(0[1-9]|1[0-2])$/.test(text)) return text;
  throw new InvalidArgumentError('Expected a month, such as 2026-11.');
}

/** Refuses 2026-02-30, which would be read as the second of March. */
function isDay(text: string): boolean {
  const ms = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text);
}

export function dailyWindow(text: string) {
  const [, ...parts] = /^([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$/.exec(text) ?? [];
  if (parts.length !== 4) {
    throw new InvalidArgumentError('Expected a window, such as 16:30-00:30.');
  }
  const [startHour = 0, startMinute = 0, endHour = 0, endMinute = 0] = parts.map(Number);
  return { start_minute: startHour * 60 + startMinute, end_minute: endHour * 60 + endMinute };
}
