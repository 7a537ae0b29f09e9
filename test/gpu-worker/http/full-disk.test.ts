/** The worker's usage journal on a disk without space, where this machine lets a test mount one. */
import { expect, test } from 'vitest';
import { systemClock } from '../../../gpu-worker/http/clock.ts';
import { openUsageJournal } from '../../../gpu-worker/http/journal/usage-journal.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import type { Script } from '../../support/worker/scripted-engine.ts';
import { smallDisk } from '../../support/small-disk.ts';

const disk = smallDisk(2 ** 20);
const folder = disk?.path ?? '';
const question = { model: 'tiny', messages: [{ role: 'user', content: 'hello' }] };

function call(body: object, id: string): [string, RequestInit] {
  const headers = { 'content-type': 'application/json', 'x-request-id': id };
  return ['/v1/chat/completions', { method: 'POST', headers, body: JSON.stringify(body) }];
}

test.skipIf(disk === null)(
  'while the disk is full nothing is computed, health says why, and it heals by itself',
  async () => {
    await using worker = await httpWorker({ script: answering('a', 'b'), folder });
    const { app, engine, log } = worker;
    disk?.fill();
    for (const [index, stream] of [true, false, true].entries()) {
      // Nothing has gone wrong before the first request.
      const refused = await app.request(...call({ ...question, stream }, `full-${index}`));
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '10']);
      const { error } = await refused.json();
      expect(error).toMatchObject({
        code: 'not_ready',
        message: expect.stringContaining('its disk is full'),
      });
      expect(error.message).not.toContain(folder);
    }
    const legacy = { method: 'POST', body: JSON.stringify({ model: 'tiny', prompt: 'hello' }) };
    const headers = { 'content-type': 'application/json' };
    expect((await app.request('/v1/completions', { ...legacy, headers })).status).toBe(503);
    expect(engine.requests).toEqual([]);
    const health = await app.request('/health');
    expect([health.status, await health.json()]).toMatchObject([
      503,
      { status: 'failed', reason: expect.stringContaining('its disk is full') },
    ]);
    expect((await app.request('/v1/requests/full-0/usage')).status).toBe(404);

    disk?.empty();
    expect((await app.request('/health')).status).toBe(200);
    expect((await app.request(...call(question, 'full-0'))).status).toBe(200);
    const said = log.map(({ msg }) => String(msg)).filter((msg) => msg.includes('usage journal'));
    expect(said).toEqual([
      'the usage journal could not be written',
      'the usage journal is written again',
    ]);
  },
);

test.skipIf(disk === null)(
  'what runs when the disk fills up goes on, is answered and is written down once there is room',
  async () => {
    const script: Script = {
      ...answering(...Array.from({ length: 40 }, () => 'word ')),
      stepMs: 5,
    };
    await using worker = await httpWorker({ script, folder });
    const { app, services, journalDirectory } = worker;
    const running = app.request(...call(question, 'running'));
    await expect.poll(() => worker.engine.steps.get('running') ?? 0).toBeGreaterThan(3);
    disk?.fill();
    // The rest of the file's last page takes a few more lines.
    await expect
      .poll(async () => (await app.request(...call(question, `probe-${Math.random()}`))).status)
      .toBe(503);
    expect((await running).status).toBe(200);
    expect((await services.journal.cancel('never-came')).status).toBe('aborted');
    const record = await services.journal.lookup('running');
    expect(record).toMatchObject({ status: 'done', usage: { completion_tokens: 40 } });

    disk?.empty();
    expect(services.journal.problem()).toBeNull();
    const { logger } = services;
    const restarted = await openUsageJournal({
      directory: journalDirectory,
      clock: systemClock,
      logger,
    });
    expect(await restarted.lookup('running')).toEqual(record);
    expect(await restarted.lookup('never-came')).toMatchObject({ status: 'aborted' });
    await restarted.close();
  },
);

test.skipIf(disk === null)(
  'a journal that is closed while the disk has room again loses nothing',
  async () => {
    await using worker = await httpWorker({ script: answering('a'), folder });
    const { journal, logger } = worker.services;
    const usage = { promptTokens: 9, cachedTokens: 0, outputTokens: 3, reasoningTokens: 0 };
    expect(journal.begin({ id: 'last', model: 'tiny' })).toBe(true);
    disk?.fill();
    // The file's last page may still take some of these.
    const begins = (id: string): boolean => {
      try {
        return journal.begin({ id, model: 'tiny' });
      } catch {
        return false;
      }
    };
    for (let index = 0; begins(`filler-${index}`); index++);
    await journal.finish('last', { outcome: 'done', usage });
    disk?.empty();
    await journal.close();
    const options = { directory: worker.journalDirectory, clock: systemClock, logger };
    const reopened = await openUsageJournal(options);
    expect(await reopened.lookup('last')).toMatchObject({
      status: 'done',
      usage: { completion_tokens: 3 },
    });
    await reopened.close();
  },
);
