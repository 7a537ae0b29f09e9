/** Commands about what tenants have paid, been given and been billed. */
import { InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { integer, pathOf, positiveUsd, queryOf, usd } from './operator.ts';
import type { Operator, Program } from './operator.ts';

const nanoUsdPerCent = 10_000_000;

function cents(text: string): number {
  const amount = positiveUsd(text) / nanoUsdPerCent;
  if (Number.isSafeInteger(amount)) return amount;
  throw new InvalidArgumentError('Expected whole cents.');
}

export function addMoneyCommands(program: Program, operator: Operator): void {
  addCredits(program, operator);
  addCorrections(program, operator);
  addEntries(program, operator);
  addCheckout(program, operator);
}

function addCredits(program: Program, { call, show }: Operator): void {
  program
    .command('credits')
    .description('credit of a tenant')
    .command('add')
    .description('add credit, once per source')
    .argument('<tenant>')
    .argument('<usd>', 'such as 12.50', positiveUsd)
    .addOption(
      new Option('--kind <kind>').choices(['granted', 'topped-up'] as const).default('granted'),
    )
    .option('--source <source>', 'such as the number of an invoice (default: a new one)')
    .option('--note <note>')
    .action((tenant, amount, { kind, source = crypto.randomUUID(), note }) =>
      show(
        call('POST', pathOf`/tenants/${tenant}/credits`, {
          kind,
          amount_nano_usd: amount,
          source,
          note,
        }),
      ),
    );
}

function addCorrections(program: Program, { call, show }: Operator): void {
  program
    .command('corrections')
    .description('corrections of the ledger')
    .command('add')
    .description('correct an entry by a new one; a negative amount takes back')
    .argument('<tenant>')
    .argument('<entry-id>', 'as entries list shows it', integer)
    .argument('<usd>', 'such as -2.50', usd)
    .requiredOption('--note <note>', 'why')
    .action((tenant, entry, amount, { note }) =>
      show(
        call('POST', pathOf`/tenants/${tenant}/corrections`, {
          entry_id: entry,
          amount_nano_usd: amount,
          note,
        }),
      ),
    );
}

function addEntries(program: Program, { call, show }: Operator): void {
  program
    .command('entries')
    .description("a tenant's ledger")
    .command('list')
    .description('a page of its entries')
    .argument('<tenant>')
    .option('--after <entry-id>', 'the last one of the page before', integer)
    .option('--limit <count>', 'entries of a page', integer)
    .action((tenant, { after, limit }) =>
      show(call('GET', pathOf`/tenants/${tenant}/entries` + queryOf({ after_id: after, limit }))),
    );
}

function addCheckout(program: Program, { call, show }: Operator): void {
  program
    .command('checkout')
    .description('payments by Stripe')
    .command('create')
    .description('a page of Stripe for the tenant to pay on')
    .argument('<tenant>')
    .argument('<usd>', 'such as 25', cents)
    .requiredOption('--success-url <url>', 'where Stripe sends who has paid')
    .requiredOption('--cancel-url <url>', 'where it sends who has not')
    .action((tenant, amount, { successUrl, cancelUrl }) =>
      show(
        call('POST', pathOf`/tenants/${tenant}/checkout`, {
          amount_cents: amount,
          success_url: successUrl,
          cancel_url: cancelUrl,
        }),
      ),
    );
}
