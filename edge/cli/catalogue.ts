/** Commands about models and their prices. */
import { dailyWindow, integer, positiveUsd, queryOf, time } from './operator.ts';
import type { Operator, Program } from './operator.ts';

export function addCatalogueCommands(program: Program, operator: Operator): void {
  const { call, show } = operator;
  const models = program.command('models').description('models that are sold');
  models
    .command('list')
    .description('all models, and those that workers serve and nobody can use yet')
    .action(() => show(call('GET', '/models')));
  models
    .command('put')
    .description('a new model, or a change of one')
    .argument('<model>', 'the name that requests use')
    .argument('<context-length>', 'tokens', integer)
    .argument('<revision>', 'a new one forgets every cached prefix of the model')
    .argument('<tokenizer>', 'the same')
    .option('--owned-by <owner>')
    .action((id, contextLength, revision, tokenizer, { ownedBy }) =>
      show(
        call('POST', '/models', {
          id,
          context_length: contextLength,
          revision,
          tokenizer,
          owned_by: ownedBy,
        }),
      ),
    );
  models
    .command('alias')
    .description('another name; a request for it runs on the first of the models that can take it')
    .argument('<name>', 'it may be a model, which then comes first')
    .argument('<models...>', 'what runs is what is billed and reported')
    .action((name, chain) => show(call('POST', '/aliases', { name, models: chain })));
  models
    .command('unalias')
    .description('forget such a name')
    .argument('<name>')
    .action((name) => show(call('DELETE', `/aliases/${encodeURIComponent(name)}`)));
  const prices = program.command('prices').description('prices of models');
  prices
    .command('list')
    .description('all prices, past and future ones too')
    .option('--model <model>', 'of this one alone')
    .action(({ model }) => show(call('GET', `/prices${queryOf({ model })}`)));
  prices
    .command('add')
    .description('a price in USD per million tokens')
    .argument('<model>')
    .argument('<cached-usd>', 'input that was cached', positiveUsd)
    .argument('<input-usd>', 'other input', positiveUsd)
    .argument('<output-usd>', 'output', positiveUsd)
    .option('--from <time>', 'from then on, such as 2026-12-01T00:00:00Z (default: now)', time)
    .option(
      '--window <window>',
      'in these hours of each day, UTC, such as 16:30-00:30',
      dailyWindow,
    )
    .action((model, cached, input, output, { from, window }) =>
      show(
        call('POST', '/prices', {
          model,
          input_cached: cached,
          input,
          output,
          from_ms: from,
          window,
        }),
      ),
    );
}
