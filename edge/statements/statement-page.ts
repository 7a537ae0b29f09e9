/**
 * A statement as a page to print: dark on white, no script, nothing loaded. Amounts are dollars,
 * exact to the nano-dollar.
 */
import { html, raw } from 'hono/html';
import { calendarOf } from '../calendar.ts';
import { formatUsd } from '../money-text.ts';
import type { StatementBody } from './statement-schema.ts';

type Html = ReturnType<typeof html>;

export function statementPage(statement: StatementBody): string {
  const { tenant, month, totals, opening_balance: opening, closing_balance: closing } = statement;
  const holds = statement.open_holds;
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>Statement of ${tenant}, ${month}</title>
        <style>
          ${raw(style)}
        </style>
      </head>
      <body>
        <header>
          <h1>Statement</h1>
          <p><b>${tenant}</b>, ${month}, days in ${statement.time_zone}</p>
          ${statement.is_complete ? '' : html`<p class="open">The month is not over yet.</p>`}
        </header>
        <table class="totals">
          ${totalRow('Opening balance', opening.amount_nano_usd)}
          ${totalRow('Credits', totals.credits.amount_nano_usd)}
          ${totalRow('Usage', 0 - totals.cost_nano_usd)}
          ${totalRow('Corrections', totals.corrections.amount_nano_usd)}
          ${totalRow('Closing balance', closing.amount_nano_usd)}
        </table>
        <p class="note">
          The closing balance is ${formatUsd(closing.granted_nano_usd)} USD granted and
          ${formatUsd(closing.topped_up_nano_usd)} USD topped up. Requests that ran at the end held
          ${formatUsd(holds.amount_nano_usd)} USD of it (${holds.count}). The prefix cache saved
          ${formatUsd(totals.saved_by_cache_nano_usd)} USD.
        </p>
        ${usageTable(statement)} ${creditTable(statement)} ${correctionTable(statement)}
      </body>
    </html>`;
  return String(page);
}

function totalRow(name: string, amount: number): Html {
  return html`<tr>
    <th scope="row">${name}</th>
    <td>${formatUsd(amount)} USD</td>
  </tr>`;
}

function usageTable({ spend }: StatementBody): Html {
  const columns = ['Model', 'Key', 'Requests', 'Input', 'Cached input', 'Output'];
  const rows = spend.map((row) => [
    row.model,
    row.key_label === '' ? row.key_id : `${row.key_label} (${row.key_id})`,
    countText(row.requests),
    countText(row.input_uncached_tokens),
    countText(row.input_cached_tokens),
    countText(row.output_text_tokens + row.output_reasoning_tokens),
    formatUsd(row.saved_by_cache_nano_usd),
    formatUsd(row.cost_nano_usd),
  ]);
  return table('Usage', [...columns, 'Saved, USD', 'Cost, USD'], rows);
}

function creditTable({ credits, time_zone: zone }: StatementBody): Html {
  const rows = credits.map((row) => [
    dayText(row.created_at_ms, zone),
    String(row.entry_id),
    row.source,
    row.granted_nano_usd === 0 ? 'topped up' : 'granted',
    row.note ?? '',
    formatUsd(row.amount_nano_usd),
  ]);
  return table('Credits', ['Day', 'Entry', 'Source', 'Kind', 'Note', 'Amount, USD'], rows);
}

function correctionTable({ corrections, time_zone: zone }: StatementBody): Html {
  const rows = corrections.map((row) => [
    dayText(row.created_at_ms, zone),
    String(row.entry_id),
    String(row.corrects),
    row.note ?? '',
    formatUsd(row.amount_nano_usd),
  ]);
  return table('Corrections', ['Day', 'Entry', 'Corrects', 'Note', 'Amount, USD'], rows);
}

/** A section without rows is not shown. */
function table(title: string, columns: readonly string[], rows: readonly string[][]): Html {
  if (rows.length === 0) return html``;
  return html`<section>
    <h2>${title}</h2>
    <table>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col">${column}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (cells) =>
            html`<tr>
              ${cells.map((cell) => html`<td>${cell}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </section>`;
}

/** Groups of three digits with a narrow space between them. */
function countText(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, '\u202f');
}

function dayText(atMs: number, zone: string): string {
  const { year, month, day } = calendarOf(zone).dayAt(atMs);
  return [year, String(month).padStart(2, '0'), String(day).padStart(2, '0')].join('-');
}

const style = `
:root { color-scheme: light; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: #fff; color: #111;
  font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.open { font-style: italic; }
.note { color: #333; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #bbb; padding: .3rem .5rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td:last-child, th:last-child { text-align: right; }
.totals { width: auto; min-width: 24rem; }
.totals tr:last-child > * { border-top: 2px solid #111; border-bottom: 0; font-weight: 700; }
@page { margin: 15mm; }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 10pt; }
  thead { display: table-header-group; } tr { break-inside: avoid; } h2 { break-after: avoid; } }
`;
