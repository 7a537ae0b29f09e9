/**
 * The edge on a disk that takes what is written and then fails to keep it. The system may forget
 * such pages, and call the next sync a success.
 */
import type * as fs from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, expect, test, vi } from 'vitest';
import { dollar, startRuntimeSystem } from '../../support/edge/runtime-system.ts';

const disk = vi.hoisted(() => ({ code: null as string | null }));

vi.mock('node:fs', async (importOriginal) => {
  const original = await importOriginal<typeof fs>();
  const fdatasync = (descriptor: number, done: (error: Error | null) => void): void => {
    if (disk.code === null) return original.fdatasync(descriptor, done);
    done(Object.assign(new Error(`${disk.code}: the disk fails`), { code: disk.code }));
  };
  return { ...original, fdatasync };
});

afterEach(() => void (disk.code = null));

const costOf = (answer: Response) => Number(answer.headers.get('x-sift-cost-nano-usd'));

test.each(['EIO', 'ENOSPC', 'EDQUOT'])(
  'a disk that keeps nothing (%s) is told as such, loses nothing, and heals without a restart',
  async (code) => {
    const system = await startRuntimeSystem();
    const first = await system.ask('acme');
    expect(first.status).toBe(200);

    disk.code = code;
    for (let each = 0; each < 3; each++) {
      const refused = await system.ask('acme');
      expect(refused.status).toBe(503);
      expect(refused.headers.get('retry-after')).toBe('10');
      const { error } = await refused.json();
      expect(error.code).toBe('tenant_unavailable');
      expect(error.message).toBe("The server's disk fails to keep records; try again later.");
    }
    // The first reached the worker, for the disk is waited for while the model works.
    expect(system.stub.requests).toHaveLength(2);

    disk.code = null;
    let healed: Response | null = null;
    await expect
      .poll(async () => {
        healed = await system.ask('acme');
        return healed.status;
      })
      .toBe(200);
    // The compiler does not see that the poll has set it.
    const last = healed as Response | null;
    if (last === null) throw new Error('it healed');
    const books = await system.audit();
    expect(books).toMatchObject({ ok: true, findings: [] });
    const { granted_nano_usd: granted } = books.total;
    expect(granted).toBe(2 * dollar - costOf(first) - costOf(last));
    await system.stop();
  },
);

test('nothing is told as kept until the log is home', async () => {
  const system = await startRuntimeSystem();
  disk.code = 'EIO';
  expect((await system.ask('acme')).status).toBe(503);
  // Another process that reads the log keeps it from being emptied.
  const reader = new Database(join(system.folder, 'tenants/acme.db'), { readonly: true });
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM entry').get();
  disk.code = null;
  const untilMs = performance.now() + 3_000;
  while (performance.now() < untilMs) expect((await system.ask('acme')).status).toBe(503);
  expect((await system.ask('other')).status).toBe(200);
  reader.exec('COMMIT');
  reader.close();
  await expect.poll(async () => (await system.ask('acme')).status).toBe(200);
  await system.stop();
});
