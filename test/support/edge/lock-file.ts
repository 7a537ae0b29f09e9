/** Locks a database from another process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

export async function lockFromOutside(
  path: string,
  keepOut: 'writers' | 'readers-too' = 'writers',
): Promise<{ release(): Promise<void> }> {
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, 'lock-child.ts'), path, keepOut],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const exited = once(child, 'exit');
  const [said] = await Promise.race([once(child.stdout, 'data'), exited]);
  if (!String(said).startsWith('locked')) throw new Error(`${path} was not locked`);
  return {
    async release() {
      child.stdin.end();
      await exited;
    },
  };
}
