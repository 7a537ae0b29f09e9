/** The worker on a disk that takes what is written, and fails when it is to keep it. */
import { fdatasync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import type { Script } from '../../support/worker/scripted-engine.ts';

const question = { model: 'tiny', messages: [{ role: 'user', content: 'hello' }] };
const faults = { EIO: 'its disk fails', ENOSPC: 'its disk is full', EDQUOT: 'its disk is full' };

/** Syncs fail with the code while there is one. */
function failingDisk() {
  const sync = promisify(fdatasync);
  const disk = {
    code: null as string | null,
    /** The number of times that it was asked to keep what it has. */
    asked: 0,
    async datasync(descriptor: number): Promise<void> {
      disk.asked++;
      if (disk.code === null) return sync(descriptor);
      throw Object.assign(new Error(`${disk.code}: fdatasync`), { code: disk.code });
    },
  };
  return disk;
}

function call(body: object, id: string, path = '/v1/chat/completions'): [string, RequestInit] {
  const headers = { 'content-type': 'application/json', 'x-request-id': id };
  return [path, { method: 'POST', headers, body: JSON.stringify(body) }];
}

test.each(Object.entries(faults))(
  'a disk that fails with %s when it is to keep a line refuses requests, and heals by itself',
  async (code, reason) => {
    const disk = failingDisk();
    await using worker = await httpWorker({ script: answering('a', 'b'), ...disk });
    const { app, engine, log, journalDirectory } = worker;
    disk.code = code;
    // It has begun when the fault is found, and its client gets what was computed.
    expect((await app.request(...call(question, 'first'))).status).toBe(200);
    expect(engine.requests).toHaveLength(1);

    const refusals = [
      call({ ...question, stream: true }, 'second'),
      call(question, 'second'),
      call({ model: 'tiny', prompt: 'hello' }, 'second', '/v1/completions'),
    ];
    for (const refusal of refusals) {
      const answer = await app.request(...refusal);
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '10']);
      const { error } = await answer.json();
      expect(error).toMatchObject({ code: 'not_ready', message: expect.stringContaining(reason) });
      expect(error.message).not.toContain(journalDirectory);
    }
    expect(engine.requests).toHaveLength(1);
    const health = await app.request('/health');
    expect([health.status, await health.json()]).toMatchObject([
      503,
      { status: 'failed', reason: expect.stringContaining(reason), load: null },
    ]);
    expect((await app.request('/v1/requests/second/usage')).status).toBe(404);
    expect(await (await app.request('/v1/requests/first/usage')).json()).toMatchObject({
      status: 'done',
      usage: { completion_tokens: 2 },
    });

    disk.code = null;
    await expect.poll(async () => (await app.request('/health')).status).toBe(200);
    expect((await app.request(...call(question, 'second'))).status).toBe(200);
    const said = log.map(({ msg }) => String(msg)).filter((msg) => msg.includes('usage journal'));
    expect(said).toEqual([
      'the usage journal could not be brought onto the disk',
      'the usage journal is on the disk again',
    ]);
  },
);

test('lines that a failed sync may have lost are written again before the disk is trusted', async () => {
  const disk = failingDisk();
  const script: Script = { ...answering(...Array.from({ length: 40 }, () => 'word ')), stepMs: 5 };
  await using worker = await httpWorker({ script, ...disk });
  const { app, services, journalDirectory } = worker;
  const running = app.request(...call(question, 'running'));
  await expect.poll(() => worker.engine.steps.get('running') ?? 0).toBeGreaterThan(3);
  disk.code = 'EIO';
  // Its line waits for the disk, so that the fault is found while the first still runs.
  expect((await services.journal.cancel('never-came')).status).toBe('aborted');
  expect(services.journal.problem()).not.toBeNull();
  expect((await running).status).toBe(200);

  const linesOf = async (id: string): Promise<number> => {
    const [name = ''] = await readdir(journalDirectory);
    const text = await readFile(join(journalDirectory, name), 'utf8');
    return text.split('\n').filter((line) => line.includes(`"id":"${id}"`)).length;
  };
  const before = [await linesOf('running'), await linesOf('never-came')];
  disk.code = null;
  await expect.poll(() => services.journal.problem()).toBeNull();
  expect(await linesOf('running')).toBeGreaterThan(before[0] ?? 0);
  expect(await linesOf('never-came')).toBeGreaterThan(before[1] ?? 0);
  const record = await services.journal.lookup('running');
  expect(record).toMatchObject({ status: 'done', usage: { completion_tokens: 40 } });
});

test('a disk that hangs while it fails is asked once at a time', async () => {
  const disk = failingDisk();
  const gate = Promise.withResolvers<void>();
  let waiting = 0;
  let isHanging = false;
  const datasync = async (descriptor: number): Promise<void> => {
    if (!isHanging) return disk.datasync(descriptor);
    waiting++;
    await gate.promise;
    return disk.datasync(descriptor);
  };
  await using worker = await httpWorker({ script: answering('a'), datasync });
  const { app, services } = worker;
  disk.code = 'EIO';
  expect((await app.request(...call(question, 'first'))).status).toBe(200);
  isHanging = true;
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, each) => app.request(...call(question, `more-${each}`))),
  );
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 503));
  expect(waiting).toBe(1);
  disk.code = null;
  isHanging = false;
  gate.resolve();
  await expect.poll(() => services.journal.problem()).toBeNull();
});
