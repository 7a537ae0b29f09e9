/**
 * An answer of the operator API as people read it: a line per row of a list, `name: value` for the
 * fields of an object, amounts in dollars, times as ISO 8601 in UTC. Exact integers are for --json.
 */
import { z } from 'zod';
import { formatUsd } from '../money-text.ts';

type Fields = Readonly<Record<string, unknown>>;

const windowSchema = z.object({ start_minute: z.int(), end_minute: z.int() });
const unsoldSchema = z.object({ model: z.string(), lacks: z.string(), command: z.string() });
const priceNames = ['input_cached', 'input', 'output'];

export function textOf(answer: unknown): string {
  if (!isFields(answer)) return String(answer);
  const { unsold, ...rest } = answer;
  const lists = Object.entries(rest).filter(([, value]) => isRows(value));
  const single = Object.fromEntries(Object.entries(rest).filter(([, value]) => !isRows(value)));
  const lines = lists.flatMap(([name, rows]) => linesOf(name, rows));
  const text = lists.length === 0 ? fieldsOf(single) : [...fieldsOf(single), ...lines];
  return [...text, ...adviceOf(unsold)].join('\n');
}

/** Rows are objects; a list of plain values is a field. */
function isRows(value: unknown): value is readonly Fields[] {
  return Array.isArray(value) && value.every(isFields);
}

function linesOf(name: string, rows: unknown): string[] {
  if (!isRows(rows) || rows.length === 0) return [`${name}: none`];
  const advice = rows.flatMap((row) => adviceOf(row['unsold']));
  return [...rows.map((row) => fieldsOf(row).join('  ')), ...new Set(advice)];
}

/** Names what keeps a model from being used, and the command that mends it. */
function adviceOf(unsold: unknown): string[] {
  const models = z.array(unsoldSchema).safeParse(unsold).data ?? [];
  return models.map(
    ({ model, lacks, command }) =>
      `nobody can use ${model}, which a worker serves: it has no ${lacks}. Add it:\n  ${command}`,
  );
}

function fieldsOf(row: Fields, prefix = ''): string[] {
  const isPrice = priceNames.every((name) => typeof row[name] === 'number');
  return Object.entries(row).flatMap(([name, value]) => {
    const label = `${prefix}${name.replace(/_nano_usd$|_ms$/, '')}`;
    if (name === 'limits' && value === null) return [`${label}: its database cannot be read`];
    if (name === 'price' && value === null) return [`${label}: none`];
    if (prefix === 'limits.' && value === null) return [`${label}: no limit`];
    // The advice is printed below the rows, once for all workers.
    if (value === null || name === 'unsold') return [];
    const window = windowSchema.safeParse(value);
    if (window.success) return [`${label}: ${windowText(window.data)}`];
    if (isFields(value)) return fieldsOf(value, `${label}.`);
    if (isPrice && priceNames.includes(name)) {
      return [`${label}: ${formatUsd(Number(value))} USD per million tokens`];
    }
    return [`${label}: ${valueText(name, value)}`];
  });
}

function valueText(name: string, value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.map(String).join(', ');
  if (typeof value !== 'number') return String(value);
  if (name.endsWith('_nano_usd')) return `${formatUsd(value)} USD`;
  // A worker's epoch is the time of its start.
  const isTime = name.endsWith('_ms') || (name === 'epoch' && value >= Date.UTC(2000, 0));
  return isTime ? new Date(value).toISOString().replace('.000Z', 'Z') : String(value);
}

function windowText({
  start_minute: start,
  end_minute: end,
}: z.infer<typeof windowSchema>): string {
  return `${clockText(start)}-${clockText(end)} UTC`;
}

function clockText(minute: number): string {
  const [hours, minutes] = [Math.floor(minute / 60), minute % 60];
  return `${String(hours).padStart(2, '0')}:${String(minutes).padStart(2, '0')}`;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
