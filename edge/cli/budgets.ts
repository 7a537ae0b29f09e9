/** Commands about budgets that requests name. */
import { InvalidArgumentError } from '@commander-js/extra-typings';
import { pathOf, positiveUsd } from './operator.ts';
import type { Operator, Program } from './operator.ts';

export function addBudgetCommands(program: Program, { call, show }: Operator): void {
  const budgets = program.command('budgets').description('budgets that requests of a tenant name');
  budgets
    .command('list')
    .description('all of them, and what is left')
    .argument('<tenant>')
    .action((tenant) => show(call('GET', pathOf`/tenants/${tenant}/budgets`)));
  budgets
    .command('set')
    .description('make one, or change its limits; what was spent stays spent')
    .argument('<tenant>')
    .argument('<name>')
    .argument('<limits>', 'in USD, such as day=5,month=50 (day, week, month, ever)', budgetWindows)
    .option('--zone <zone>', 'time zone of its windows, such as Europe/Berlin (default: UTC)')
    .action((tenant, name, limits, { zone }) =>
      show(call('PUT', pathOf`/tenants/${tenant}/budgets/${name}`, budgetTermsOf(limits, zone))),
    );
  budgets
    .command('remove')
    .description('requests that name it are refused then')
    .argument('<tenant>')
    .argument('<name>')
    .action((tenant, name) => show(call('DELETE', pathOf`/tenants/${tenant}/budgets/${name}`)));
}

const periods = ['day', 'week', 'month', 'ever'];

/** Reads `day=5,month=50`: dollars for each window. */
export function budgetWindows(text: string) {
  return text.split(',').map((limit) => {
    const [window = '', amount = '', ...more] = limit.split('=');
    if (!periods.includes(window) || more.length > 0) {
      throw new InvalidArgumentError('Expected limits such as day=5,month=50.');
    }
    return { window, limit_nano_usd: positiveUsd(amount) };
  });
}

export function budgetTermsOf(windows: ReturnType<typeof budgetWindows>, zone: string | undefined) {
  return { windows, ...(zone !== undefined && { zone }) };
}
