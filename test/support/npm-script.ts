/**
 * The arguments that `npm run <name>` gives to Node, so that a program is tested and measured as it
 * is run.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';

const packageFile = new URL('../../package.json', import.meta.url);
const packageSchema = z.object({ scripts: z.record(z.string(), z.string()) });

/** @throws Error if the script does not start one program of Node's. */
export function scriptArgs(name: string): readonly string[] {
  const { scripts } = packageSchema.parse(JSON.parse(readFileSync(packageFile, 'utf8')));
  const [, args] = /^exec node (\S.*)$/.exec(scripts[name] ?? '') ?? [];
  if (args === undefined) throw new Error(`the script ${name} does not begin with 'exec node'`);
  return args.split(' ');
}
