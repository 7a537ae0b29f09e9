/** Commands that report on all tenants, or on one. */
import { Option } from '@commander-js/extra-typings';
import { day, month, pathOf, queryOf } from './operator.ts';
import type { Operator, Program } from './operator.ts';

export function addReportCommands(program: Program, operator: Operator): void {
  const { call, show } = operator;
  const exports = program.command('export').description('rows for other programs');
  exports
    .command('usage')
    .description('usage per tenant, day, model and key')
    .addOption(format())
    .option('--tenant <tenant>', 'of this one alone')
    .option('--from <day>', 'first day, UTC, such as 2026-12-01', day)
    .option('--to <day>', 'last day, UTC', day)
    .action((flags) => show(call('GET', `/export/usage${queryOf({ ...flags })}`)));
  exports
    .command('entries')
    .description('every entry of the ledgers')
    .addOption(format())
    .option('--tenant <tenant>', 'of this one alone')
    .action((flags) => show(call('GET', `/export/entries${queryOf({ ...flags })}`)));
  program
    .command('statement')
    .description('what came in and what was spent in a month')
    .argument('<tenant>')
    .argument('<month>', 'such as 2026-11', month)
    .addOption(new Option('--format <format>').choices(['json', 'csv', 'html'] as const))
    .option('--time-zone <zone>', 'whose midnights begin the month (default: UTC)')
    .action((tenant, of, { format: as, timeZone }) =>
      show(
        call(
          'GET',
          pathOf`/tenants/${tenant}/statements/${of}` +
            queryOf({ format: as, time_zone: timeZone }),
        ),
      ),
    );
  program
    .command('prefixes')
    .description('how often the prefix index promised what no worker had')
    .option('--tenant <tenant>', 'of this one alone')
    .option('--from <day>', 'first day, UTC, such as 2026-12-01', day)
    .option('--to <day>', 'last day, UTC', day)
    .action((flags) => show(call('GET', `/prefixes${queryOf({ ...flags })}`)));
  program
    .command('audit')
    .description('recompute every balance from its entries')
    .option('--tenant <tenant>', 'of this one alone')
    .action((flags) => show(call('GET', `/audit${queryOf({ ...flags })}`)));
}

function format() {
  return new Option('--format <format>').choices(['jsonl', 'csv'] as const);
}
