/** Commands about the keys of a tenant. */
import { Argument, InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { budgetTermsOf, budgetWindows } from './budgets.ts';
import { integer, pathOf, time } from './operator.ts';
import type { Operator, Program } from './operator.ts';
import { limitsOf, withLimits } from './tenants.ts';

export function addKeyCommands(program: Program, operator: Operator): void {
  const keys = program.command('keys').description('API keys of a tenant');
  addKeys(keys, operator);
  addChanges(keys, operator);
}

function addKeys(keys: Program, { call, show }: Operator): void {
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
    .addOption(priorityOption())
    .addOption(weightOption())
    .addOption(expiresOption())
    .addOption(modelsOption())
    .addOption(budgetOption())
    .addOption(zoneOption())
    .action((tenant, flags) =>
      show(
        call('POST', pathOf`/tenants/${tenant}/keys`, {
          label: flags.label,
          scopes: flags.scopes,
          ...termsOf(flags),
          limits: limitsOf(flags),
        }),
      ),
    );
}

function addChanges(keys: Program, { call, show }: Operator): void {
  keys
    .command('update')
    .description('change what a key may; what is left out stays')
    .argument('<tenant>')
    .argument('<key-id>')
    .option('--label <label>', 'what it is for')
    .addOption(priorityOption())
    .addOption(weightOption())
    .addOption(expiresOption())
    .addOption(modelsOption())
    .addOption(budgetOption())
    .addOption(zoneOption())
    .action((tenant, key, flags) =>
      show(
        call('PATCH', pathOf`/tenants/${tenant}/keys/${key}`, {
          label: flags.label,
          ...termsOf(flags),
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

const priorities = ['low', 'normal', 'high'] as const;
const scopeNames = ['inference', 'read', 'admin'];

function scopes(text: string): readonly string[] {
  const asked = text.split(',');
  const unknown = asked.find((scope) => !scopeNames.includes(scope));
  if (unknown === undefined) return asked;
  throw new InvalidArgumentError(`'${unknown}' is no scope; there are ${scopeNames.join(', ')}.`);
}

const priorityOption = () =>
  new Option('--priority <priority>', "among the tenant's keys").choices(priorities);
const weightOption = () =>
  new Option('--weight <weight>', 'share beside other keys of its priority').argParser(integer);
const expiresOption = () =>
  new Option(
    '--expires <time>',
    'when it is refused, such as 2027-01-01T00:00:00Z, or never',
  ).argParser((text) => (text === 'never' ? null : time(text)));
const modelsOption = () =>
  new Option('--models <ids>', 'the models that it may run, such as a,b, or all').argParser(
    (text) => (text === 'all' ? null : text.split(',')),
  );
const budgetOption = () =>
  new Option(
    '--budget <limits>',
    'in USD, such as day=5,month=50 (day, week, month, ever), or none',
  ).argParser((text) => (text === 'none' ? null : budgetWindows(text)));
const zoneOption = () =>
  new Option('--zone <zone>', 'time zone of the budget, such as Europe/Berlin (default: UTC)');

/** A flag that is left out is not sent. */
function termsOf(flags: {
  readonly priority?: string | undefined;
  readonly weight?: number | undefined;
  readonly expires?: number | null | undefined;
  readonly models?: readonly string[] | null | undefined;
  readonly budget?: ReturnType<typeof budgetWindows> | null | undefined;
  readonly zone?: string | undefined;
}) {
  const { priority, weight, expires, models, budget, zone } = flags;
  return {
    priority,
    weight,
    expires_at_ms: expires,
    models,
    budget: budget == null ? budget : budgetTermsOf(budget, zone),
  };
}
