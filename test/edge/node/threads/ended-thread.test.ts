/** A thread that ends takes its tenants with it, so the process ends too, and says why. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

test('a process whose thread fails ends with the reason', async () => {
  const program = `
    import { startThreads } from './edge/node/threads/start-threads.ts';
    startThreads({ count: 2, folder: '/no/such/folder', settings: { openTenantsMax: 2 } });
    setInterval(() => {}, 1_000);`;
  const args = ['--eval', program];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (piece) => (said += String(piece)));
  const [code] = await once(child, 'exit');
  expect(code).not.toBe(0);
  expect(said).toContain('/no/such/folder/directory.db cannot be opened');
});
