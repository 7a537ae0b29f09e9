/**
 * A process to be killed: holds and settles over the database file that its first line of input
 * names, in groups, and acknowledges on its output each hold and settlement after it was answered.
 */
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { commitInGroups } from '../../../db/group-commit.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { admitInput, chainOf, sampleHold, settleInput } from './tenant-samples.ts';

const [path, round] = (await firstLine()).split(' ');
const { db } = openTenantDb(path ?? '');
const committer = commitInGroups(db, setImmediate);
const tenant = createTenant(db, { clock: { nowMs: Date.now }, committer });

/** Half of the requests name a budget, and hold their output lease by lease. */
const isLeased = (lane: number): boolean => lane % 2 === 1;
const leased = { lease: { outputTokens: 10 }, budgets: { names: ['b'], trimTo: null } };

async function serve(lane: number): Promise<never> {
  for (let count = 0; ; count++) {
    const requestId = `${round}-${lane}-${count}`;
    const chain = chainOf(count % 100, 4);
    const terms = isLeased(lane) ? leased : {};
    await tenant.admit(admitInput(requestId, { prefixChain: chain, ...terms }));
    acknowledge(`held ${requestId}`);
    const placed = { requestId, worker: 'w1', epoch: 1, workerUrl: 'http://w1', chain };
    await tenant.placed(placed);
    if (isLeased(lane)) {
      for (let lease = 0; lease < 2; lease++) {
        await tenant.extend({ requestId, amountNanoUsd: sampleHold / 4, leastNanoUsd: 1 });
      }
    }
    const settlement = await tenant.settle(
      settleInput(requestId, { worker: 'w1', epoch: 1, confirmedChain: chain }),
    );
    acknowledge(`settled ${requestId} ${settlement.costNanoUsd}`);
  }
}

/** Written before the next line of code runs, so what was acknowledged is in the pipe. */
function acknowledge(line: string): void {
  writeSync(1, `${line}\n`);
}

async function firstLine(): Promise<string> {
  for await (const line of createInterface({ input: process.stdin })) return line;
  throw new Error('expected the path of a database');
}

await Promise.all([0, 1, 2, 3, 4, 5].map(serve));
