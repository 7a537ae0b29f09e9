/**
 * Commands on the files of an edge on Node; they need no edge that runs, and are for its own
 * machine.
 */
import { backUp } from '../node/back-up.ts';
import { restore } from '../node/restore.ts';
import { UserError } from '../../infra/user-error.ts';
import type { Operator, Program } from './operator.ts';

export function addBackupCommands(program: Program, { env, show }: Operator): void {
  const dataFolder = env['EDGE_DATA'] || './data';
  program
    .command('backup')
    .description("copy all of an edge's data, while it serves, into a new folder of this machine")
    .argument('<folder>')
    .option('--data <folder>', "the edge's data (default: EDGE_DATA, else ./data)", dataFolder)
    .action(async (into, { data }) => {
      const clock = { nowMs: () => Date.now() };
      const { files, unavailable } = await backUp({ dataFolder: data, into, clock });
      const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
      await show(Promise.resolve({ folder: into, files: files.length, bytes, unavailable }));
      if (unavailable.length > 0) {
        const names = unavailable.map(({ tenant, reason }) => `${tenant} (${reason})`).join(', ');
        throw new UserError(`the backup lacks tenants whose database cannot be read: ${names}`);
      }
    });
  program
    .command('restore')
    .description('check a backup and make a data folder of it, for an edge that does not run yet')
    .argument('<backup>', 'the folder that `backup` has made')
    .argument('[data]', 'the new data folder (default: EDGE_DATA, else ./data)', dataFolder)
    .option('--despite-findings', 'put it back although the audit of its ledgers says something')
    .action(async (backup, data, { despiteFindings = false }) => {
      const { tenants, unavailable, findings } = await restore({
        backup,
        dataFolder: data,
        despiteFindings,
      });
      await show(Promise.resolve({ data, tenants, unavailable, findings: [...findings] }));
    });
}
