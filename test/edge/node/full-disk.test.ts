/** The edge on a disk without space, where this machine lets a test mount one. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { dollar, startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import { smallDisk } from '../../support/small-disk.ts';

const disk = smallDisk(8 * 2 ** 20);

test.skipIf(disk === null)(
  'a full disk is told as such, loses nothing, and heals without a restart',
  async () => {
    const logged: Readonly<Record<string, unknown>>[] = [];
    const system = await startRuntimeSystem({
      dataFolder: join(disk?.path ?? '', 'data'),
      log: (_, event, fields) => void logged.push({ event, ...fields }),
    });
    const costOf = (answer: Response) => Number(answer.headers.get('x-sift-cost-nano-usd'));
    const first = await system.ask('acme');
    expect(first.status).toBe(200);
    let paid = costOf(first);

    disk?.fill();
    // The pages that SQLite has reserved of its log take a few more.
    let full: Response | null = null;
    await expect
      .poll(async () => {
        const answer = await system.ask('acme');
        if (answer.status === 200) paid += costOf(answer);
        else full = answer;
        return answer.status;
      })
      .toBe(503);
    // The compiler does not see that the poll has set it.
    const refusal = full as Response | null;
    expect(refusal?.headers.get('retry-after')).toBe('10');
    expect(await refusal?.json()).toMatchObject({ error: { code: 'storage_full' } });
    await expect(system.operator().call('POST', '/tenants', { id: 'third' })).rejects.toThrow(
      /503 .*storage_full/,
    );
    expect(JSON.stringify(logged)).not.toContain('internal_error');

    disk?.empty();
    const healed = await system.ask('acme');
    expect(healed.status).toBe(200);
    paid += costOf(healed);
    await system.operator().call('POST', '/tenants', { id: 'third' });
    const books = await system.audit();
    expect(books).toMatchObject({ ok: true, findings: [], total: { held_nano_usd: 0 } });
    expect(books.total.granted_nano_usd).toBe(2 * dollar - paid);
    await system.stop();
  },
);
