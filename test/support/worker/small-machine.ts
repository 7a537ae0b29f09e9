/** Preloaded into a worker (`node --import`): its machine has 24 MiB of memory. */
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

os.totalmem = () => 24 * 2 ** 20;
syncBuiltinESMExports();
