/**
 * `sift hostile`: starts the whole system on loopback, runs every attack against it and prints for
 * each topic how many there were, held and broken. Its exit code is 1 if any broke something.
 */
import { Option } from '@commander-js/extra-typings';
import type { CommandModule } from '../../infra/program.ts';
import { runAttack } from './run-attacks.ts';
import { runtimes, startHostileSystem } from './system.ts';
import type { Runtime } from './system.ts';
import { topics } from './topics.ts';

/** A program that ends is known to have ended so long after it broke its connections. */
const endedMs = 1_000;

interface Row {
  attempts: number;
  held: number;
  broken: number;
}

const names = Object.keys(topics);

export const configure: CommandModule['configure'] = (program) => {
  program
    .addOption(new Option('--only <topic>', 'attacks of one topic').choices(names))
    .addOption(
      new Option('--runtime <runtime>', 'what the edge runs in').choices(runtimes).default('node'),
    )
    .option('--threads <count>', 'EDGE_THREADS of an edge on Node', '1')
    .option('--match <text>', 'attacks whose name has this text in it', '')
    .action(attackAll);
};

async function attackAll(options: {
  only?: string;
  match: string;
  threads: string;
  runtime: Runtime;
}): Promise<void> {
  const { runtime } = options;
  const edgeEnv = runtime === 'node' ? { EDGE_THREADS: options.threads } : {};
  const table: Record<string, Row> = {};
  let system = await startHostileSystem({ runtime, edgeEnv });
  try {
    for (const topic of options.only === undefined ? names : [options.only]) {
      const row = { attempts: 0, held: 0, broken: 0 };
      for (const attack of topics[topic] ?? []) {
        if (!attack.name.includes(options.match)) continue;
        if ((attack.only ?? runtime) !== runtime) continue;
        const verdict = await runAttack(system, attack);
        row.attempts++;
        if (verdict === 'held') row.held++;
        else row.broken++;
        console.log(`${verdict === 'held' ? 'held  ' : 'BROKEN'} ${topic}: ${attack.name}`);
        if (verdict === 'held') continue;
        console.log(`       ${verdict.broken}`);
        await new Promise((resolve) => setTimeout(resolve, endedMs));
        const dead = [system.edge, system.worker].find((each) => !each.isRunning());
        if (dead === undefined) continue;
        console.log(`       a program ended: ${dead.said().slice(-2_000)}`);
        await system[Symbol.asyncDispose]();
        system = await startHostileSystem({ runtime, edgeEnv });
      }
      if (row.attempts > 0) table[topic] = row;
    }
  } finally {
    await system[Symbol.asyncDispose]();
  }
  console.log(`the edge in ${runtime}, threads: ${options.threads}`);
  console.table(table);
  // Connections of an attack that broke something would keep the process.
  process.exit(Object.values(table).some(({ broken }) => broken > 0) ? 1 : 0);
}
