/** The journal on a real disk: crashes, torn lines, rotation, bounds. Only the clock is made up. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { queryObjects } from 'node:v8';
import { crc32 } from 'node:zlib';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { EngineUsage } from '../../../../gpu-worker/engine/request.ts';
import { openUsageJournal } from '../../../../gpu-worker/http/journal/usage-journal.ts';
import type { UsageJournal } from '../../../../gpu-worker/http/journal/usage-journal.ts';
import { usageRecordSchema } from '../../../../gpu-worker/protocol/usage.ts';

const hourMs = 3_600_000;
const usage: EngineUsage = {
  promptTokens: 100,
  cachedTokens: 64,
  outputTokens: 7,
  reasoningTokens: 2,
};

let directory: string;
let wallMs: number;
const warnings: Record<string, unknown>[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sift-journal-'));
  wallMs = Date.UTC(2026, 10, 23, 18, 30);
  warnings.length = 0;
});
afterEach(() => rm(directory, { recursive: true }));

function open(options: { placesMax?: number } = {}): Promise<UsageJournal> {
  return openUsageJournal({
    directory,
    clock: { wallMs: () => wallMs, steadyMs: () => wallMs },
    logger: pino({ level: 'warn' }, { write: (line) => warnings.push(JSON.parse(line)) }),
    ...options,
  });
}

async function onlyFile(): Promise<string> {
  const [name, ...others] = await readdir(directory);
  expect(others).toEqual([]);
  return join(directory, name ?? '');
}

test('a finished request is answered with its usage, also after a restart', async () => {
  const journal = await open();
  expect(journal.begin({ id: 'a', model: 'tiny' })).toBe(true);
  wallMs += 2_000;
  await journal.finish('a', { outcome: 'done', usage });
  const record = await journal.lookup('a');
  expect(usageRecordSchema.parse(record)).toEqual({
    object: 'request.usage',
    id: 'a',
    model: 'tiny',
    status: 'done',
    created: wallMs / 1000 - 2,
    updated: wallMs / 1000,
    usage: {
      prompt_tokens: 100,
      completion_tokens: 7,
      total_tokens: 107,
      prompt_tokens_details: { cached_tokens: 64 },
      completion_tokens_details: { reasoning_tokens: 2 },
      prompt_cache_hit_tokens: 64,
      prompt_cache_miss_tokens: 36,
    },
  });
  await journal.close();
  const reopened = await open();
  expect(await reopened.lookup('a')).toEqual(record);
  await reopened.close();
});

test('an unknown request has no record', async () => {
  const journal = await open();
  expect(await journal.lookup('nobody')).toBeNull();
  await journal.close();
});

test('a running request is answered with its counts so far', async () => {
  const journal = await open();
  journal.begin({ id: 'a', model: 'tiny' });
  expect(await journal.lookup('a')).toMatchObject({
    status: 'running',
    usage: { prompt_tokens: 0 },
  });
  journal.update('a', usage);
  expect(await journal.lookup('a')).toMatchObject({
    status: 'running',
    usage: { completion_tokens: 7 },
  });
  await journal.close();
});

test('an id can be used again after its request has ended, not before; the newest wins', async () => {
  const journal = await open();
  journal.begin({ id: 'a', model: 'tiny' });
  expect(journal.begin({ id: 'a', model: 'tiny' })).toBe(false);
  await journal.finish('a', { outcome: 'aborted', usage });
  expect(journal.begin({ id: 'a', model: 'tiny' })).toBe(true);
  expect(await journal.lookup('a')).toMatchObject({ status: 'running' });
  await journal.finish('a', { outcome: 'done', usage: { ...usage, outputTokens: 9 } });
  await journal.close();
  const reopened = await open();
  expect(await reopened.lookup('a')).toMatchObject({
    status: 'done',
    usage: { completion_tokens: 9 },
  });
  await reopened.close();
});

test('checkpoints are at least a second apart', async () => {
  const journal = await open();
  journal.begin({ id: 'a', model: 'tiny' });
  for (let step = 1; step <= 100; step++) {
    wallMs += 25;
    journal.update('a', { ...usage, outputTokens: step });
  }
  const lines = (await readFile(await onlyFile(), 'utf8')).trim().split('\n');
  // 2.5 seconds: the beginning and two checkpoints.
  expect(lines).toHaveLength(3);
  await journal.close();
});

test('kill -9 loses no finished request, and a running one keeps its last checkpoint', async () => {
  const child = fork(
    new URL('../../../support/worker/journal-child.ts', import.meta.url),
    [directory],
    {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    },
  );
  const acknowledged: string[] = [];
  child.on('message', (id) => acknowledged.push(String(id)));
  while (acknowledged.length < 50) await once(child, 'message');
  child.kill('SIGKILL');
  await once(child, 'exit');

  wallMs = Date.now();
  const journal = await open();
  for (const id of acknowledged) {
    expect(await journal.lookup(id)).toMatchObject({
      status: 'done',
      usage: { completion_tokens: 5 },
    });
  }
  expect(await journal.lookup('long')).toMatchObject({
    status: 'interrupted',
    usage: { prompt_tokens: 100, completion_tokens: 3 },
  });
  expect(await journal.lookup('just-begun')).toMatchObject({
    status: 'interrupted',
    usage: { prompt_tokens: 0, completion_tokens: 0 },
  });
  await journal.close();
});

test('a torn last line is skipped and does not swallow the next one', async () => {
  const journal = await open();
  for (const id of ['a', 'b']) {
    journal.begin({ id, model: 'tiny' });
    await journal.finish(id, { outcome: 'done', usage });
  }
  await journal.close();
  const path = await onlyFile();
  const whole = await readFile(path, 'utf8');
  for (const cut of [1, 2, 20, 100]) {
    await writeFile(path, whole.slice(0, -cut));
    const reopened = await open();
    expect(await reopened.lookup('a')).toMatchObject({ status: 'done' });
    // Its last whole line says that it began; without its newline alone the last line is whole.
    expect(await reopened.lookup('b')).toMatchObject({
      status: cut === 1 ? 'done' : 'interrupted',
    });
    reopened.begin({ id: 'c', model: 'tiny' });
    await reopened.finish('c', { outcome: 'done', usage });
    await reopened.close();
    const again = await open();
    expect(await again.lookup('c')).toMatchObject({ status: 'done' });
    await again.close();
  }
});

test('a damaged line is skipped and reported', async () => {
  const journal = await open();
  for (const id of ['a', 'b']) {
    journal.begin({ id, model: 'tiny' });
    await journal.finish(id, { outcome: 'done', usage });
  }
  await journal.close();
  const path = await onlyFile();
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace('"outputTokens":7', '"outputTokens":8'));
  await appendFile(path, 'not json\n{"crc32":"00000000","entry":{}}\n\n');
  const reopened = await open();
  expect(await reopened.lookup('a')).toMatchObject({ status: 'interrupted' });
  expect(await reopened.lookup('b')).toMatchObject({ usage: { completion_tokens: 7 } });
  expect(warnings).toMatchObject([{ damaged: 3 }]);
  await reopened.close();
});

test('records last 24 hours, and their files little longer', async () => {
  const journal = await open();
  const begun = wallMs;
  for (let hour = 0; hour <= 30; hour++) {
    wallMs = begun + hour * hourMs;
    journal.begin({ id: `hour-${hour}`, model: 'tiny' });
    await journal.finish(`hour-${hour}`, { outcome: 'done', usage });
  }
  expect(await journal.lookup('hour-5')).toBeNull();
  expect(await journal.lookup('hour-6')).not.toBeNull();
  await journal.close();
  const reopened = await open();
  expect(await reopened.lookup('hour-5')).toBeNull();
  expect(await reopened.lookup('hour-6')).not.toBeNull();
  const names = await readdir(directory);
  expect(names.length).toBeLessThanOrEqual(26);
  expect(names).toContain('usage-2026-11-25T00.jsonl');
  await reopened.close();
});

test('a request that runs over a full hour keeps its record', async () => {
  const journal = await open();
  journal.begin({ id: 'a', model: 'tiny' });
  wallMs += hourMs;
  journal.update('a', usage);
  wallMs += hourMs;
  await journal.finish('a', { outcome: 'done', usage });
  await journal.close();
  expect(await readdir(directory)).toHaveLength(3);
  const reopened = await open();
  expect(await reopened.lookup('a')).toMatchObject({
    status: 'done',
    usage: { completion_tokens: 7 },
  });
  await reopened.close();
});

test('what memory has forgotten is found in the files', async () => {
  const journal = await open({ placesMax: 3 });
  for (let index = 0; index < 10; index++) {
    journal.begin({ id: `r${index}`, model: 'tiny' });
    await journal.finish(`r${index}`, {
      outcome: 'done',
      usage: { ...usage, outputTokens: index },
    });
    wallMs += hourMs / 4;
  }
  const records = await Promise.all(
    Array.from({ length: 10 }, (_, index) => journal.lookup(`r${index}`)),
  );
  expect(records.map((record) => record?.usage.completion_tokens)).toEqual([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
  ]);
  expect(await journal.lookup('r10')).toBeNull();
  await journal.close();
});

test('requests whose ids have one hash are told apart', async () => {
  const ids = ['8a9e0b75eccc318e', 'c4c2e7143c8d44b7'];
  expect(new Set(ids.map((id) => crc32(id))).size).toBe(1);
  const journal = await open();
  for (const [index, id] of ids.entries()) {
    journal.begin({ id, model: 'tiny' });
    await journal.finish(id, { outcome: 'done', usage: { ...usage, outputTokens: index } });
  }
  const records = await Promise.all(ids.map((id) => journal.lookup(id)));
  expect(records.map((record) => record?.usage.completion_tokens)).toEqual([0, 1]);
  await journal.close();
  const reopened = await open();
  expect(await Promise.all(ids.map((id) => reopened.lookup(id)))).toEqual(records);
  await reopened.close();
});

test('a request that has ended takes less than 128 bytes of memory, up to a bound', async () => {
  const placesMax = 20_000;
  const journal = await open({ placesMax });
  let id = 0;
  const endSome = async (count: number): Promise<void> => {
    for (let each = 0; each < count; each++) {
      const name = `0190c0de-0000-7000-8000-${String(id++).padStart(12, '0')}`;
      journal.begin({ id: name, model: 'tiny' });
      const finished = journal.finish(name, { outcome: 'done', usage });
      // Many share a sync: what is measured is memory.
      if (each % 500 === 499) await finished;
    }
  };
  const heapBytes = (): number => {
    // It collects garbage first.
    queryObjects(WeakRef, { format: 'count' });
    return process.memoryUsage().heapUsed;
  };
  await endSome(1_000);
  const begun = heapBytes();
  await endSome(placesMax);
  expect((heapBytes() - begun) / placesMax).toBeLessThan(128);
  await endSome(placesMax);
  expect((heapBytes() - begun) / placesMax).toBeLessThan(128);
  await journal.close();
});

test('lookups in the files wait for one another, and too many are refused', async () => {
  const journal = await open({ placesMax: 1 });
  for (const id of ['a', 'b']) {
    journal.begin({ id, model: 'tiny' });
    await journal.finish(id, { outcome: 'done', usage });
  }
  const lookups = await Promise.allSettled(Array.from({ length: 40 }, () => journal.lookup('a')));
  const found = lookups.filter((each) => each.status === 'fulfilled');
  expect(found).toHaveLength(32);
  expect(lookups.find((each) => each.status === 'rejected')?.reason).toMatchObject({
    status: 429,
    headers: { 'retry-after': '1' },
  });
  expect(await journal.lookup('a')).toMatchObject({ status: 'done' });
  await journal.close();
});

test('many requests that end together share their syncs and are all on disk', async () => {
  const journal = await open();
  const ids = Array.from({ length: 500 }, (_, index) => `r${index}`);
  for (const id of ids) journal.begin({ id, model: 'tiny' });
  await Promise.all(ids.map((id) => journal.finish(id, { outcome: 'done', usage })));
  const text = await readFile(await onlyFile(), 'utf8');
  expect(text.split('\n').filter((line) => line.includes('"done"'))).toHaveLength(500);
  await journal.close();
});

test('a journal that can no longer be written counts its errors and holds nothing back', async () => {
  const journal = await open();
  journal.begin({ id: 'a', model: 'tiny' });
  await journal.close();
  await journal.finish('a', { outcome: 'done', usage });
  expect(journal.errors()).toBe(1);
  expect(await journal.lookup('a')).toMatchObject({ status: 'done' });
});
