/** `sift fuzz`: mutated requests and files of checkpoints, in search of crashes, hangs and 500s. */
import { randomInt } from 'node:crypto';
import type { CommandModule } from '../../infra/program.ts';
import { UsageError } from '../../infra/user-error.ts';
import { checkpointTargets } from './checkpoint-targets.ts';
import { fuzz, runCase } from './fuzz.ts';
import type { Failure } from './fuzz.ts';
import { openRequestTargets } from './request-targets.ts';

const failuresMax = 20;

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--seed <number>', 'seed of the mutants (default: a new one, which is printed)')
    .option('--count <number>', 'mutants in all (default 100000)')
    .option('--seconds <number>', 'seconds after which the run ends in any case (default 1800)')
    .option('--target <name>', 'one target alone')
    .option('--index <number>', 'one mutant of that target alone')
    .action(async ({ target: only, ...flags }) => {
      const seed = numberOf('seed', flags.seed) ?? randomInt(2 ** 31);
      const count = numberOf('count', flags.count) ?? 100_000;
      const seconds = numberOf('seconds', flags.seconds) ?? 1_800;
      const index = numberOf('index', flags.index);
      const all = [...checkpointTargets, ...(await openRequestTargets())];
      const targets = only === undefined ? all : all.filter(({ name }) => name === only);
      if (targets.length === 0) {
        throw new UsageError(
          `--target: there are ${all.map(({ name }) => `'${name}'`).join(', ')}`,
        );
      }
      console.log(`seed ${seed}`);
      let failures: readonly Failure[] = [];
      for (const target of targets) {
        const due = Math.ceil(
          (count * target.share) / targets.reduce((sum, each) => sum + each.share, 0),
        );
        const endMs = performance.now() + (seconds * 1_000 * target.share) / 100;
        const found =
          index === null
            ? await fuzz({ targets: [target], seed, count: due, endMs, failuresMax })
            : {
                cases: 1,
                failures: [await runCase(target, seed, index)].filter((each) => each !== null),
              };
        console.log(
          `${target.name}: ${found.cases} of ${index === null ? due : 1} mutants, ${found.failures.length} failures`,
        );
        failures = [...failures, ...found.failures];
      }
      for (const failure of failures) print(failure);
      for (const { close } of all) await close?.();
      // A mutant that hangs would keep the process.
      process.exit(failures.length > 0 ? 1 : 0);
    });
};

function numberOf(flag: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new UsageError(`--${flag} is '${text}', which is no number`);
}

function print({ target, seed, index, input, reason }: Failure): void {
  console.error(`\n${reason}\ninput: ${input}`);
  console.error(`again: npm run fuzz -- --seed ${seed} --target '${target}' --index ${index}`);
}
