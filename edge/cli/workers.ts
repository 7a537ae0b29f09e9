/** Commands about workers. */
import { UsageError } from '../../infra/user-error.ts';
import { integer, pathOf } from './operator.ts';
import type { Operator, Program } from './operator.ts';

export function addWorkerCommands(program: Program, operator: Operator): void {
  const { call, show } = operator;
  const workers = program.command('workers').description('workers and foreign engines');
  workers
    .command('list')
    .description(
      'all workers, what is in flight on each, which of their models nobody can use, ' +
        'and whose heartbeats were refused',
    )
    .action(() => show(call('GET', '/workers')));
  workers
    .command('drain')
    .description('send it nothing new')
    .argument('<worker>')
    .action((worker) => show(call('POST', pathOf`/workers/${worker}/drain`, { draining: true })));
  workers
    .command('resume')
    .description('send it requests again')
    .argument('<worker>')
    .action((worker) => show(call('POST', pathOf`/workers/${worker}/drain`, { draining: false })));
  workers
    .command('add')
    .description('an engine that does not announce itself')
    .argument('<worker>', 'a name of your choice')
    .argument('<url>', 'such as http://vllm.example:8000')
    .option('--token-env <variable>', 'environment variable that holds the token it is shown')
    .option('--slots <n>', 'answers that it is given at a time', integer)
    .action((id, url, { tokenEnv, slots }) => {
      const token = tokenFrom(operator.env, tokenEnv);
      return show(call('POST', '/workers', { id, url, token, slots }));
    });
  workers
    .command('remove')
    .description('forget an engine that was added so')
    .argument('<worker>')
    .action((worker) => show(call('DELETE', pathOf`/workers/${worker}`)));
}

/** A token on the command line would be read by whoever lists the processes. */
function tokenFrom(env: Operator['env'], name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const token = env[name];
  if (!token) throw new UsageError(`the environment variable ${name} is not set`);
  return token;
}
