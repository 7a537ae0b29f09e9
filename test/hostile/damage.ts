/** Bad luck with files: databases that are locked, gone, cut or another's, and a second edge. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { lockFromOutside } from '../support/edge/lock-file.ts';
import { startProgram } from '../support/started-program.ts';
import { verdictOf } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import type { Caller, HostileSystem } from './system.ts';

const short = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 };
/** A file that changed is noticed within this time; after it the attack has its answer. */
const noticedMsMax = 10_000;

/** Attacks on files that only the edge on Node has; a Durable Object's are its platform's. */
const onNode: readonly Omit<Attack, 'only'>[] = [
  {
    name: "another process locks a tenant's database",
    async run(system) {
      const caller = await system.addTenant('locked');
      const held = await lockFromOutside(fileOf(system, caller));
      try {
        const locked = system.post(caller, '/v1/chat/completions', short);
        const other = await statusOf(system, system.victim);
        return verdictOf(
          other === 200 ? null : `another tenant got ${other}`,
          await isUnavailable(await locked),
        );
      } finally {
        await held.release();
      }
    },
  },
  ...Object.entries({
    removed: (path: string) => renameSync(path, `${path}.away`),
    'an empty file now': (path: string) => replaceWith(path, 0),
    'cut within its header': (path: string) => replaceWith(path, 50),
  }).map(([name, damage]) => ({
    name: `a tenant's database is ${name}`,
    async run(system: HostileSystem) {
      const caller = await system.addTenant(`damage ${name}`);
      const path = fileOf(system, caller);
      damage(path);
      try {
        return await wasNoticed(system, caller);
      } finally {
        // The books are to be whole again before the next attack.
        rmSync(path, { force: true });
        renameSync(`${path}.away`, path);
      }
    },
  })),
  {
    name: 'a second edge on the same data',
    async run(system) {
      const env = { PORT: '0', EDGE_DATA: join(system.folder, 'edge') };
      try {
        const second = await startProgram({ args: ['infra/sift.ts', 'edge'], env });
        await second.stop();
        return { broken: 'it started' };
      } catch (error) {
        if (!/in use by another edge, process \d+/.test(String(error))) {
          return { broken: `it does not say who has the data: ${String(error).slice(0, 300)}` };
        }
        const status = await statusOf(system, system.victim);
        return verdictOf(status === 200 ? null : `the first one answers ${status}`);
      }
    },
  },
];

export const damageAttacks: readonly Attack[] = onNode.map((attack) => ({
  ...attack,
  only: 'node',
}));

function replaceWith(path: string, bytes: number): void {
  renameSync(path, `${path}.away`);
  writeFileSync(path, Buffer.alloc(bytes));
}

function fileOf(system: HostileSystem, caller: Caller): string {
  return join(system.folder, 'edge/tenants', `${caller.tenant}.db`);
}

async function wasNoticed(system: HostileSystem, caller: Caller): Promise<Verdict> {
  const untilMs = performance.now() + noticedMsMax;
  for (;;) {
    const answer = await system.post(caller, '/v1/chat/completions', short);
    if (answer.status !== 200) {
      const other = await statusOf(system, system.victim);
      return verdictOf(
        await isUnavailable(answer),
        other === 200 ? null : `another tenant got ${other}`,
      );
    }
    await answer.body?.cancel();
    if (performance.now() > untilMs) return { broken: 'the tenant is still served' };
  }
}

async function isUnavailable(answer: Response): Promise<string | null> {
  const text = await answer.text();
  if (answer.status !== 503 || !text.includes('tenant_unavailable')) {
    return `it answered ${answer.status} ${text.slice(0, 200)}`;
  }
  if (/sqlite|\.db|\/tmp/i.test(text)) return `its answer tells of the server: ${text}`;
  return answer.headers.has('retry-after') ? null : 'it does not say when to come back';
}

async function statusOf(system: HostileSystem, caller: Caller): Promise<number> {
  const answer = await system.post(caller, '/v1/chat/completions', short);
  await answer.body?.cancel();
  return answer.status;
}
