/**
 * `npm run docs:settings`: writes the tables of settings in docs/ anew from what the programs read.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { nodeSettings, sharedSettings } from '../edge/settings/settings-table.ts';
import { at } from '../gpu-worker/at.ts';
import { cudaSettings } from '../gpu-worker/backend/cuda/cuda-settings.ts';
import { workerSettings } from '../gpu-worker/settings.ts';
import { defaultTextOf } from './settings.ts';
import type { Setting } from './settings.ts';

const begin = '<!-- settings: written by npm run docs:settings -->';
const end = '<!-- end of settings -->';

interface Page {
  readonly file: URL;
  readonly table: string;
}

export const pages: readonly Page[] = [
  { file: new URL('../docs/run-the-edge.md', import.meta.url), table: edgeTable() },
  { file: new URL('../docs/run-a-worker.md', import.meta.url), table: workerTable() },
];

/** The page's text with the table between its marks. @throws Error if it has no marks. */
export function withTable(text: string, table: string): string {
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the page lacks '${begin}' and '${end}'`);
  return `${text.slice(0, from + begin.length)}\n\n${table}\n\n${text.slice(to)}`;
}

function edgeTable(): string {
  const rows = Object.entries(nodeSettings).map(([name, row]: [string, Setting]) => [
    code(row.env),
    Object.hasOwn(sharedSettings, name) ? 'both' : 'Node',
    defaultCell(row),
    row.help,
  ]);
  return markdownTable(['variable', 'runtime', 'default', 'meaning'], rows);
}

function workerTable(): string {
  const all: readonly Setting[] = [
    ...Object.values(workerSettings),
    ...Object.values(cudaSettings),
  ];
  const rows = all.map((row) => [
    row.flag === undefined ? '' : code(`--${row.flag}`),
    code(row.env),
    defaultCell(row),
    row.help,
  ]);
  return markdownTable(['flag', 'variable', 'default', 'meaning'], rows);
}

/** A default is a value, or words where it depends on something. */
function defaultCell(row: Setting): string {
  const text = defaultTextOf(row);
  return text === '' || row.defaultText !== undefined ? text : code(text);
}

function code(text: string): string {
  return `\`${text}\``;
}

/** Columns are padded as the formatter pads them. */
function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const escaped = rows.map((cells) => cells.map((cell) => cell.replaceAll('*', String.raw`\*`)));
  const widths = head.map((title, column) =>
    Math.max(title.length, ...escaped.map((cells) => at(cells, column).length)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(at(widths, column))).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(head), rule, ...escaped.map(line)].join('\n');
}

if (import.meta.main) {
  for (const { file, table: written } of pages) {
    writeFileSync(file, withTable(readFileSync(file, 'utf8'), written));
  }
}
