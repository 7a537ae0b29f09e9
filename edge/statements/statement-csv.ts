/**
 * A statement as CSV: a row per line. The amounts of the rows between the two balances add up from
 * the first to the second; what holds reserve and the cache saved are in columns of their own.
 */
import { csvLine } from '../csv-line.ts';
import { formatUsd } from '../money-text.ts';
import type { StatementBody } from './statement-schema.ts';

const columns = [
  'section',
  'created_at',
  'entry_id',
  'corrects',
  'source',
  'model',
  'key_id',
  'key_label',
  'note',
  'requests',
  'input_uncached_tokens',
  'input_cached_tokens',
  'output_text_tokens',
  'output_reasoning_tokens',
  'saved_by_cache_nano_usd',
  'held_nano_usd',
  'amount_nano_usd',
  'amount_usd',
] as const;

type Row = { readonly [Column in (typeof columns)[number]]?: string | number | null | undefined };

export function statementCsv(statement: StatementBody): string {
  const { opening_balance: opening, closing_balance: closing } = statement;
  const rows: Row[] = [
    { section: 'opening_balance', created_at: isoOf(statement.from_ms), ...amountOf(opening) },
    ...statement.credits.map((row) => ({ ...row, section: 'credit', ...lineOf(row) })),
    ...statement.spend.map((row) => ({
      ...row,
      section: 'spend',
      ...amountOf({ amount_nano_usd: 0 - row.cost_nano_usd }),
    })),
    ...statement.corrections.map((row) => ({ ...row, section: 'correction', ...lineOf(row) })),
    {
      section: 'closing_balance',
      created_at: isoOf(statement.to_ms),
      held_nano_usd: statement.open_holds.amount_nano_usd,
      ...amountOf(closing),
    },
  ];
  const lines = rows.map((row) => csvLine(columns.map((column) => row[column] ?? null)));
  return csvLine(columns) + lines.join('');
}

function lineOf(row: { readonly created_at_ms: number; readonly amount_nano_usd: number }) {
  return { created_at: isoOf(row.created_at_ms), ...amountOf(row) };
}

function amountOf({ amount_nano_usd: amount }: { readonly amount_nano_usd: number }) {
  return { amount_nano_usd: amount, amount_usd: formatUsd(amount) };
}

function isoOf(atMs: number): string {
  return new Date(atMs).toISOString();
}
