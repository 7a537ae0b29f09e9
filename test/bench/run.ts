/**
 * `sift bench [name ...]`: runs the named benchmarks, or all that need no GPU, one after another.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Argument } from '@commander-js/extra-typings';
import type { CommandModule } from '../../infra/program.ts';

const benchmarks: Readonly<Record<string, string>> = {
  worker: 'the tiny model on the cpu backend, over HTTP',
  weights: 'weights from a store on loopback, and the time to a first token',
  'cpu-ops': 'the hot ops of the cpu backend, one by one',
  'long-prompt': 'the 60,181 tokens of expected-long.json, and whether the answer is that one',
  needles: 'planted questions at 4K to 128K through the whole system, sparse and dense',
  edge: 'the governed path of the edge on Node, against a bare pass-through',
  'edge-threads': 'the same on more threads, with the load and the stub on cores of their own',
  grammar: 'answers held to a schema: compiling and masks at the vocabulary of DeepSeek-V3',
  schemas: 'how much of the schemas of four suites is kept, ignored and refused',
  tenant: "holds and settlements of a tenant's database, prefix lookups",
  overload: 'a light tenant beside heavy ones that send more than the system can do',
  stalls: "how long one request keeps the edge's event loop and the worker's HTTP thread",
  tokenizer: 'texts of one kind, whose time has to go by their length',
  locked: "other tenants while another process locks one tenant's database",
  memory: 'whether the edge grows with the requests that it has answered',
  'worker-memory': 'whether the worker does',
  'prefix-trace': 'a public trace through the prefix index and placement',
};

const names = Object.keys(benchmarks);
const list = Object.entries(benchmarks).map(([name, what]) => `  ${name.padEnd(14)} ${what}`);

export const configure: CommandModule['configure'] = (program) => {
  program
    .addArgument(new Argument('[names...]', 'all if none is named').choices(names))
    .addHelpText('after', `\nBenchmarks:\n${list.join('\n')}`)
    .action((wanted) => (wanted.length > 0 ? wanted : names).forEach(run));
};

function run(name: string): void {
  console.log(`\n${name}: ${benchmarks[name]}`);
  const file = fileURLToPath(new URL(`./${name}.ts`, import.meta.url));
  const { status } = spawnSync(process.execPath, [file], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
