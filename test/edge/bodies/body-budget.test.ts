/**
 * The budget of request bodies: never more than it, never less than nothing, and nobody is
 * forgotten.
 */
import { expect, test } from 'vitest';
import { createBodyBudget, smallBodyBytesMax } from '../../../edge/bodies/body-budget.ts';
import type { Reservation } from '../../../edge/bodies/body-budget.ts';
import { seededRandom } from '../../support/random.ts';

const bodyBytesMax = 1024 * 1024;
const bytesMax = 8 * bodyBytesMax;
const never = new AbortController().signal;
const budgetOf = () => createBodyBudget({ bytesMax, bodyBytesMax });

test('random bodies stay within the budget, all that do not leave are served, and it is empty in the end', async () => {
  const seed = Date.now() % 1_000_000;
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  const budget = budgetOf();
  const open = new Set<Reservation>();
  const expected = { asked: 0, left: 0 };
  const seen = { served: 0, left: 0 };
  const waiting: Promise<void>[] = [];
  const leaving: AbortController[] = [];
  for (let step = 0; step < 3_000; step++) {
    const act = random.uniform();
    if (act < 0.5 && waiting.length - seen.served - seen.left < 60) {
      const owner = random.choose(['a', 'b', 'c', 'd']);
      const bytes = random.choose([1, 5_000, smallBodyBytesMax, 300_000, bodyBytesMax]);
      const client = new AbortController();
      leaving.push(client);
      expected.asked++;
      const reserving = budget.reserve(owner, bytes, client.signal).then(
        (reservation) => {
          seen.served++;
          if (random.uniform() < 0.3) reservation.shrink(Math.floor(bytes / 2));
          open.add(reservation);
        },
        () => void seen.left++,
      );
      waiting.push(reserving);
    } else if (act < 0.6 && leaving.length > 0) {
      random.choose(leaving).abort();
    } else {
      const [oldest] = open;
      oldest?.release();
      // A second release is none.
      if (random.uniform() < 0.1) oldest?.release();
      if (oldest) open.delete(oldest);
    }
    await new Promise((resolve) => setImmediate(resolve));
    expect(budget.bytes()).toBeLessThanOrEqual(bytesMax);
    expect(budget.bytes()).toBeGreaterThanOrEqual(0);
  }
  while (seen.served + seen.left < expected.asked) {
    for (const reservation of open) reservation.release();
    open.clear();
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const reservation of open) reservation.release();
  await Promise.all(waiting);
  expect(seen.served).toBeGreaterThan(100);
  expect(budget.bytes()).toBe(0);
});

test('an owner who takes all that it may leaves room for others, large and small', async () => {
  const budget = budgetOf();
  for (let body = 0; body < 3; body++) await budget.reserve('greedy', bodyBytesMax, never);
  let served = false;
  const further = budget.reserve('greedy', bodyBytesMax, never).then((reservation) => {
    served = true;
    return reservation;
  });
  const others = [
    await budget.reserve('modest', bodyBytesMax, never),
    await budget.reserve('modest', 10, never),
    await budget.reserve('greedy', 10, never),
  ];
  expect(served).toBe(false);
  for (const other of others) other.release();
  expect(served).toBe(false);
  void further;
});

test('those who wait take turns by owner, and none overtakes one who needs more', async () => {
  const budget = budgetOf();
  const order: string[] = [];
  const first = await Promise.all(
    ['x', 'x', 'x', 'y', 'y', 'y'].map((owner) => budget.reserve(owner, bodyBytesMax, never)),
  );
  const ask = (owner: string, bytes: number) =>
    void budget.reserve(owner, bytes, never).then(() => order.push(owner));
  for (let body = 0; body < 3; body++) ask('a', bodyBytesMax);
  ask('b', bodyBytesMax);
  ask('c', 100_000);
  for (const reservation of first) {
    reservation.release();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(order.slice(0, 3)).toEqual(['a', 'b', 'c']);
});

test('where too many wait already the next is refused at once, and told to come again', async () => {
  const budget = budgetOf();
  for (let body = 0; body < 3; body++) await budget.reserve('a', bodyBytesMax, never);
  const client = new AbortController();
  const refusals: unknown[] = [];
  const asked = Array.from({ length: 400 }, () =>
    budget
      .reserve('a', bodyBytesMax, client.signal)
      .catch((error: unknown) => refusals.push(error)),
  );
  await expect.poll(() => refusals.length).toBeGreaterThan(0);
  expect(refusals.length).toBeLessThan(asked.length);
  for (const refusal of refusals) {
    expect(refusal).toMatchObject({ status: 429, headers: { 'retry-after': '1' } });
  }
  client.abort();
  await Promise.all(asked);
  expect(refusals.length).toBe(asked.length);
});
