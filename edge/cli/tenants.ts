/** Commands about tenants and their keys. */
import { Argument, InvalidArgumentError, Option } from '@commander-js/extra-typings';
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
  addKeyCommands(program, operator);
}

function addKeyCommands(program: Program, { call, show }: Operator): void {
  const keys = program.command('keys').description('API keys of a tenant');
  keys
    .command('list')
    .description("a tenant's keys and their limits")
    .argument('<tenant>')
    .action((tenant) => show(call('GET', pathOf`/tenants/${tenant}/keys`)));
  keys
    .command('show')
    .description('a key and its limits')
    .argument('<tenant>')
    .argument('<key-id>')
    .action((tenant, key) => show(call('GET', pathOf`/tenants/${tenant}/keys/${key}`)));
  withLimits(keys.command('create').argument('<tenant>'))
    .description('a new key, shown this once')
    .option('--label <label>', 'what it is for')
    .option('--scopes <scopes>', 'of inference, read and admin (default: inference,read)', scopes)
    .addOption(new Option('--priority <priority>', "among the tenant's keys").choices(priorities))
    .action((tenant, flags) =>
      show(
        call('POST', pathOf`/tenants/${tenant}/keys`, {
          label: flags.label,
          scopes: flags.scopes,
          priority: flags.priority,
          limits: limitsOf(flags),
        }),
      ),
    );
  withLimits(keys.command('limit').argument('<tenant>').argument('<key-id>'))
    .description('limits of one key; one that is left out is lifted')
    .action((tenant, key, flags) =>
      show(call('PATCH', pathOf`/tenants/${tenant}/keys/${key}`, { limits: limitsOf(flags) })),
    );
  keys
    .command('priority')
    .description("which of the tenant's waiting requests go first; low ones are served too")
    .argument('<tenant>')
    .argument('<key-id>')
    .addArgument(new Argument('<priority>').choices(priorities))
    .action((tenant, key, priority) =>
      show(call('PATCH', pathOf`/tenants/${tenant}/keys/${key}`, { priority })),
    );
  keys
    .command('revoke')
    .description('refuse a key from the next request on, for good')
    .argument('<tenant>')
    .argument('<key-id>')
    .action((tenant, key) =>
      show(call('PATCH', pathOf`/tenants/${tenant}/keys/${key}`, { status: 'revoked' })),
    );
}

type NoOptions = Record<never, never>;

function withLimits<Values extends unknown[]>(command: Command<Values, NoOptions>) {
  return command
    .option('--requests-per-minute <count>', 'default: no limit', integer)
    .option('--tokens-per-minute <count>', 'uncached input and output (default: no limit)', integer)
    .option('--concurrent-requests <count>', 'default: no limit', integer);
}

function limitsOf(flags: {
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

const priorities = ['low', 'normal', 'high'] as const;
const scopeNames = ['inference', 'read', 'admin'];

function scopes(text: string): readonly string[] {
  const asked = text.split(',');
  const unknown = asked.find((scope) => !scopeNames.includes(scope));
  if (unknown === undefined) return asked;
  throw new InvalidArgumentError(`'${unknown}' is no scope; there are ${scopeNames.join(', ')}.`);
}
