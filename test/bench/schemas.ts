/**
 * Counts how much of the schemas that clients send is kept: suites of JSON Schema itself, of zod,
 * TypeBox and pydantic. Prints the table of docs/structured-output.md, and what was refused by
 * which keyword.
 */
import { at } from '../../gpu-worker/at.ts';
import { officialSuite, outcomeOf } from '../support/schemas/schema-suite.ts';
import type { SuiteCase } from '../support/schemas/schema-suite.ts';
import { pydanticSuite } from '../support/schemas/pydantic-schemas.ts';
import { typeBoxSuite } from '../support/schemas/typebox-schemas.ts';
import { zodSuite } from '../support/schemas/zod-schemas.ts';

function required(draft: 'draft2020-12' | 'draft7'): readonly SuiteCase[] {
  const files = [...officialSuite(draft)].filter(([file]) => !file.startsWith('optional'));
  return files.flatMap(([, cases]) => cases);
}

const suites: Readonly<Record<string, readonly SuiteCase[]>> = {
  'JSON-Schema-Test-Suite, draft 2020-12': required('draft2020-12'),
  'JSON-Schema-Test-Suite, draft 7': required('draft7'),
  'zod 4, all types in four dialects': zodSuite(),
  'TypeBox, all types': typeBoxSuite(),
  'pydantic 2, documented forms': pydanticSuite(),
};

const rows: string[][] = [['suite', 'schemas', 'kept', 'of these, something ignored', 'refused']];
const refused = new Map<string, number>();
for (const [name, suite] of Object.entries(suites)) {
  const outcomes = suite.map(({ schema }) => outcomeOf(schema));
  const ignoring = outcomes.filter((each) => each.kind === 'kept' && each.ignored.length > 0);
  const refusals = outcomes.filter((each) => each.kind === 'refused');
  const kept = outcomes.length - refusals.length;
  rows.push([name, ...[outcomes.length, kept, ignoring.length, refusals.length].map(String)]);
  for (const { keyword, reason } of refusals) {
    const what = `${name}: ${keyword}, ${reason}`;
    refused.set(what, (refused.get(what) ?? 0) + 1);
  }
}
const widths = at(rows, 0).map((_, column) =>
  Math.max(...rows.map((row) => at(row, column).length)),
);
const line = (row: readonly string[]): string =>
  `| ${row.map((cell, column) => cell.padEnd(at(widths, column))).join(' | ')} |`;
const body = rows.slice(1);
console.log(
  [line(at(rows, 0)), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n'),
);
console.log('\nrefused:');
for (const [what, count] of refused) console.log(`${String(count).padStart(4)}  ${what}`);
