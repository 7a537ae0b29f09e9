/** Commands about tenants. */
import type { Command } from '@commander-js/extra-typings';
import { integer, pathOf } from './operator.ts';
import type { Operator, Program } from './operator.ts';

export function addTenantCommands(program: Program, operator: Operator): void {
  const { call, show } = operator;
  const tenants = program.command('tenants').description('tenants, their status and limits');
  tenants
    .command('list')
    .description('all tenants and their limits')
    .action(() => show(call('GET', '/tenants')));
  tenants
    .command('create')
    .description('a new tenant')
    .argument('<tenant>')
    .option('--name <name>', 'as people know it')
    .action((id, { name }) => show(call('POST', '/tenants', { id, name })));
  tenants
    .command('show')
    .description('a tenant, its balance and limits')
    .argument('<tenant>')
    .action((tenant) => show(call('GET', pathOf`/tenants/${tenant}`)));
  tenants
    .command('suspend')
    .description('refuse its requests')
    .argument('<tenant>')
    .action((tenant) => show(call('PATCH', pathOf`/tenants/${tenant}`, { status: 'suspended' })));
  tenants
    .command('resume')
    .description('serve its requests again')
    .argument('<tenant>')
    .action((tenant) => show(call('PATCH', pathOf`/tenants/${tenant}`, { status: 'active' })));
  withLimits(tenants.command('limit').argument('<tenant>'))
    .description('limits over all of its keys; one that is left out is lifted')
    .action((tenant, flags) =>
      show(call('PATCH', pathOf`/tenants/${tenant}`, { limits: limitsOf(flags) })),
    );
  tenants
    .command('weight')
    .description('its share of the workers beside other tenants that wait too')
    .argument('<tenant>')
    .argument('<weight>', '1 to 1000; a new tenant has 1', integer)
    .action((tenant, weight) => show(call('PATCH', pathOf`/tenants/${tenant}`, { weight })));
}

type NoOptions = Record<never, never>;

export function withLimits<Values extends unknown[]>(command: Command<Values, NoOptions>) {
  return command
    .option('--requests-per-minute <count>', 'default: no limit', integer)
    .option('--tokens-per-minute <count>', 'uncached input and output (default: no limit)', integer)
    .option('--concurrent-requests <count>', 'default: no limit', integer);
}

export function limitsOf(flags: {
  readonly requestsPerMinute?: number | undefined;
  readonly tokensPerMinute?: number | undefined;
  readonly concurrentRequests?: number | undefined;
}) {
  return {
    requests_per_minute: flags.requestsPerMinute ?? null,
    tokens_per_minute: flags.tokensPerMinute ?? null,
    concurrent_requests: flags.concurrentRequests ?? null,
  };
}
