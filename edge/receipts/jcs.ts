/**
 * JSON in the one form of RFC 8785 (JCS), so that all who sign or verify a value have the same
 * bytes: keys in the order of their UTF-16 code units, no spaces, numbers and strings as JavaScript
 * writes them.
 */
import { strict as assert } from 'node:assert';

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [name: string]: Json };

/** @throws AssertionError for infinite numbers and halves of characters, which have no form. */
export function toJcs(value: Json): string {
  if (typeof value === 'number') assert(Number.isFinite(value), 'JSON has no such number');
  if (typeof value === 'string') assert(value.isWellFormed(), 'the text has half a character');
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isList(value)) return `[${value.map(toJcs).join(',')}]`;
  const members = Object.entries(value)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${toJcs(name)}:${toJcs(member)}`);
  return `{${members.join(',')}}`;
}

function isList(value: object): value is readonly Json[] {
  return Array.isArray(value);
}
