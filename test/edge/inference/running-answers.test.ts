import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createRunningAnswers } from '../../../edge/inference/running-answers.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const minute = 60_000;

function start(runOnMs = 10 * minute, charactersMax = 1_000_000) {
  const answers = createRunningAnswers({
    clock: { nowMs: () => Date.now() },
    runOnMs,
    runOnTokens: 100,
    charactersMax,
  });
  const run = (id: string) => {
    const answer = answers.claim({ requestId: id, tenant: 'acme' });
    const stop = vi.fn<() => void>();
    const leave = answer.join();
    answer.runs(stop);
    return { answer, stop, leave };
  };
  return { answers, run };
}

test('an answer with a client is never stopped', () => {
  const { stop } = start().run('r1');
  vi.advanceTimersByTime(24 * 60 * minute);
  expect(stop).not.toHaveBeenCalled();
});

test('an answer is stopped once its last client has been away for as long as it may', () => {
  const { answers, run } = start();
  const { answer, stop, leave } = run('r1');
  const second = answer.join();
  leave();
  leave();
  vi.advanceTimersByTime(20 * minute);
  second();
  vi.advanceTimersByTime(9 * minute);
  const third = answer.join();
  vi.advanceTimersByTime(9 * minute);
  third();
  expect(answers.find('r1')).toBe(answer);
  vi.advanceTimersByTime(10 * minute);
  expect(stop).toHaveBeenCalledOnce();
  expect(answers.find('r1')).toBeNull();
  expect(answers.isSettling('r1')).toBe(true);
  answer.over();
  expect(answers.isSettling('r1')).toBe(false);
});

test('an answer without a client ends before its hold could be voided', () => {
  const { stop, leave } = start(60 * minute).run('r1');
  vi.advanceTimersByTime(30 * minute);
  leave();
  vi.advanceTimersByTime(29 * minute);
  expect(stop).toHaveBeenCalledOnce();
});

test('a client that left before its answer began does not keep it', () => {
  const { answers } = start(minute);
  const answer = answers.claim({ requestId: 'r1', tenant: 'acme' });
  answer.join()();
  const stop = vi.fn<() => void>();
  answer.runs(stop);
  vi.advanceTimersByTime(minute);
  expect(stop).toHaveBeenCalledOnce();
});

test('a process that ends stops what nobody waits for, and the rest when it is left', () => {
  const { answers, run } = start();
  const [left, read, over] = [run('left'), run('read'), run('over')];
  left.leave();
  over.leave();
  over.answer.over();
  answers.stopAbandoned();
  expect(left.stop).toHaveBeenCalledOnce();
  expect(read.stop).not.toHaveBeenCalled();
  read.leave();
  expect(read.stop).toHaveBeenCalledOnce();
  expect(over.stop).not.toHaveBeenCalled();
});

test('answers share what is kept of them', async () => {
  const { answers } = start(minute, 16);
  const claim = (requestId: string) => answers.claim({ requestId, tenant: 'acme' });
  const [one, two] = [claim('r1'), claim('r2')];
  await one.log.append(['aaaa', 'bbbb', 'cccc']);
  const { signal } = new AbortController();
  await expect(one.log.read(0, signal).next()).rejects.toMatchObject({ status: 409 });
  two.over();
  await one.log.append(['dddd']);
  expect((await one.log.read(1, signal).next()).value).toBe('bbbbccccdddd');
});

test("a tenant's many answers take nothing of what is kept of another's", async () => {
  const { answers } = start(minute, 16);
  const one = answers.claim({ requestId: 'one', tenant: 'other' });
  for (let id = 0; id < 50; id++) answers.claim({ requestId: `many-${id}`, tenant: 'acme' });
  await one.log.append(['aaaa', 'bbbb']);
  const { signal } = new AbortController();
  expect((await one.log.read(0, signal).next()).value).toBe('aaaabbbb');
});

test('an answer that nobody waits for ends after so many more tokens', () => {
  const { answers, run } = start();
  const { answer, stop, leave } = run('r1');
  answer.counts(1_000);
  expect(stop).not.toHaveBeenCalled();
  leave();
  answer.counts(1_100);
  const second = answer.join();
  answer.counts(1_300);
  second();
  answer.counts(1_400);
  expect(stop).not.toHaveBeenCalled();
  answer.counts(1_401);
  expect(stop).toHaveBeenCalledOnce();
  expect(answers.find('r1')).toBeNull();
});
