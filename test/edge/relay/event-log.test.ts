import { expect, test } from 'vitest';
import {
  createEventLog,
  eventsAfter,
  numberEvents,
  splitEvents,
} from '../../../edge/relay/event-log.ts';

const signal = new AbortController().signal;
const logOf = (charactersMax = 1_000) => createEventLog(() => charactersMax);

async function readAll(reading: AsyncGenerator<string, void>): Promise<string> {
  let text = '';
  for await (const piece of reading) text += piece;
  return text;
}

test('a reader gets what there is at once, and then what comes', async () => {
  const log = logOf();
  await log.append(['a', 'b']);
  const reading = log.read(0, signal);
  expect((await reading.next()).value).toBe('ab');
  const next = reading.next();
  await log.append(['c']);
  expect((await next).value).toBe('c');
  log.end();
  expect((await reading.next()).done).toBe(true);
});

test('a reader that begins later reads the same', async () => {
  const log = logOf();
  const first = readAll(log.read(0, signal));
  await log.append(['a', 'b', 'c']);
  const second = readAll(log.read(2, signal));
  await log.append(['d']);
  log.end();
  expect(await first).toBe('abcd');
  expect(await second).toBe('cd');
  expect(await readAll(log.read(4, signal))).toBe('');
});

test('an event that never comes is refused once that is known', async () => {
  const log = logOf();
  const reading = readAll(log.read(2, signal));
  await log.append(['a']);
  log.end();
  await expect(reading).rejects.toMatchObject({ code: 'invalid_value', param: 'Last-Event-ID' });
});

test('a log that fails says why to those who have read what there is', async () => {
  const log = logOf();
  await log.append(['a']);
  log.fail(new Error('the worker died'));
  const reading = log.read(0, signal);
  expect((await reading.next()).value).toBe('a');
  await expect(reading.next()).rejects.toThrow('the worker died');
});

test('a reader whose client leaves ends at once, and keeps nobody waiting', async () => {
  const log = logOf(4);
  const leave = new AbortController();
  const waiting = log.read(0, leave.signal).next();
  leave.abort(new Error('it left'));
  await expect(waiting).rejects.toThrow('it left');
  await log.append(['aaaa', 'bbbb', 'cccc']);
});

test('without readers only the end is kept, and who asks for the beginning is told', async () => {
  const log = logOf(8);
  await log.append(['aaaa', 'bbbb', 'cccc']);
  await expect(log.read(0, signal).next()).rejects.toMatchObject({ code: 'idempotency_no_answer' });
  expect((await log.read(1, signal).next()).value).toBe('bbbbcccc');
});

test('the only reader makes the writer wait, and misses nothing', async () => {
  const log = logOf(8);
  const slow = log.read(0, signal);
  await log.append(['aaaa']);
  expect((await slow.next()).value).toBe('aaaa');
  let written = false;
  const writing = log.append(['bbbb', 'cccc']).then(() => (written = true));
  await new Promise(setImmediate);
  expect(written).toBe(false);
  expect((await slow.next()).value).toBe('bbbbcccc');
  await writing;
  log.end();
  expect((await slow.next()).done).toBe(true);
});

test('a reader that falls behind another is told so, and holds up neither it nor the writer', async () => {
  const log = logOf(8);
  const slow = log.read(0, signal);
  await log.append(['aaaa']);
  expect((await slow.next()).value).toBe('aaaa');
  const fast = readAll(log.read(0, signal));
  for (const event of ['bbbb', 'cccc', 'dddd', 'eeee']) await log.append([event]);
  log.end();
  expect(await fast).toBe('aaaabbbbccccddddeeee');
  await expect(slow.next()).rejects.toMatchObject({ code: 'idempotency_no_answer' });
});

test('a reader that waits for an event far ahead is not taken for the one that is ahead', async () => {
  const log = logOf(8);
  const reading = log.read(0, signal);
  await log.append(['aaaa']);
  expect((await reading.next()).value).toBe('aaaa');
  const ahead = readAll(log.read(900, signal));
  const writing = log.append(['bbbb', 'cccc']);
  await new Promise(setImmediate);
  expect((await reading.next()).value).toBe('bbbbcccc');
  await writing;
  log.end();
  await expect(ahead).rejects.toMatchObject({ param: 'Last-Event-ID' });
});

test('events are split after their blank lines and numbered in turn', () => {
  const text = 'event: a\ndata: {"x":"\\n\\n"}\n\ndata: b\n\n';
  expect(splitEvents(text)).toEqual(['event: a\ndata: {"x":"\\n\\n"}\n\n', 'data: b\n\n']);
  const numbered = numberEvents(text, 7);
  expect(numbered).toBe('id: 7\nevent: a\ndata: {"x":"\\n\\n"}\n\nid: 8\ndata: b\n\n');
  expect(eventsAfter(numbered, 0)).toBe(numbered);
  expect(eventsAfter(numbered, 1)).toBe('id: 8\ndata: b\n\n');
  expect(eventsAfter(numbered, 2)).toBe('');
  expect(() => eventsAfter(numbered, 3)).toThrow('no event 3');
});
