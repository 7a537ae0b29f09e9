/**
 * Rows as JSON lines or CSV (RFC 4180), written as they are read: an export is never held whole.
 */
import { csvLine } from '../csv-line.ts';

export type Row = Readonly<Record<string, string | number | null | undefined>>;

const mediaTypes = { jsonl: 'application/x-ndjson', csv: 'text/csv; charset=utf-8' };

interface RowFormat {
  readonly columns: readonly string[];
  readonly format: 'jsonl' | 'csv';
}

/** Writes a row in both formats, as their media types name them. */
export function rowExamples(columns: readonly string[], row: Row): Record<string, string> {
  return {
    [mediaTypes.jsonl]: lineOf(row, { columns, format: 'jsonl' }),
    [mediaTypes.csv]: csvLine(columns) + lineOf(row, { columns, format: 'csv' }),
  };
}

/** Rows are sent in pieces of about this size. */
const pieceCharacters = 16 * 1024;

export function streamRows(rows: AsyncIterator<Row>, options: RowFormat): Response {
  const { columns, format } = options;
  const encoder = new TextEncoder();
  let piece = format === 'csv' ? csvLine(columns) : '';
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (;;) {
        const next = await rows.next();
        if (!next.done) piece += lineOf(next.value, options);
        if (next.done || piece.length >= pieceCharacters) {
          if (piece !== '') controller.enqueue(encoder.encode(piece));
          piece = '';
          if (next.done) controller.close();
          return;
        }
      }
    },
    async cancel() {
      await rows.return?.();
    },
  });

  return new Response(body, { headers: { 'content-type': mediaTypes[format] } });
}

function lineOf(row: Row, { columns, format }: RowFormat): string {
  const values = columns.map((column) => row[column] ?? null);
  if (format === 'csv') return csvLine(values);
  const named = columns.map((column, index) => [column, values[index]]);
  return `${JSON.stringify(Object.fromEntries(named))}\n`;
}
