import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FairQueue, quantumTokens } from '../../../edge/fleet/fair-queue.ts';
import type { Queued } from '../../../edge/fleet/fair-queue.ts';
import type { Priority } from '../../../edge/tenant/key-contract.ts';

interface Item extends Queued {
  readonly id: string;
}

function item(tenant: string, more: Partial<Item> = {}): Item {
  return { id: '', tenant, weight: 1, priority: 'normal', cost: 100, goesFirst: false, ...more };
}

const any = () => true;

function take(queue: FairQueue<Item>, count: number): Item[] {
  return Array.from({ length: count }, () => queue.next(any)).filter((each) => each !== null);
}

function tokensBy(items: readonly Item[], name: (item: Item) => string): Record<string, number> {
  const tokens: Record<string, number> = {};
  for (const each of items) tokens[name(each)] = (tokens[name(each)] ?? 0) + each.cost;
  return tokens;
}

test('tenants that always wait get tokens by their weights, whatever the sizes, within a quantum', () => {
  const tenant = fc.record({
    weight: fc.integer({ min: 1, max: 8 }),
    sizes: fc.array(fc.integer({ min: 1, max: 4_000 }), { minLength: 1, maxLength: 4 }),
  });
  fc.assert(
    fc.property(fc.array(tenant, { minLength: 2, maxLength: 5 }), (tenants) => {
      const queue = new FairQueue<Item>();
      const added = tenants.map(() => 0);
      const addOne = (index: number): void => {
        const { weight, sizes } = tenants[index] ?? { weight: 1, sizes: [] };
        const cost = sizes[(added[index] = (added[index] ?? 0) + 1) % sizes.length] ?? 1;
        queue.push(item(String(index), { weight, cost }));
      };
      tenants.forEach((_, index) => {
        addOne(index);
        addOne(index);
      });
      const served = tenants.map(() => 0);
      for (let each = 0; each < 2_000; each++) {
        const next = queue.next(any);
        const index = Number(next?.tenant);
        served[index] = (served[index] ?? 0) + (next?.cost ?? 0);
        addOne(index);
      }
      const rounds = tenants.map(({ weight }, index) => (served[index] ?? 0) / weight);
      // A quantum either way, and the one request that goes beyond it.
      const slack = 2 * quantumTokens + 2 * 4_000;
      expect(Math.max(...rounds) - Math.min(...rounds)).toBeLessThanOrEqual(slack);
    }),
    { numRuns: 50 },
  );
});

test('a tenant that comes new goes before those that have been served, but once', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 50; each++) queue.push(item('heavy', { cost: 600 }));
  take(queue, 10);
  for (let each = 0; each < 10; each++) queue.push(item('light', { cost: 600 }));
  const order = take(queue, 5).map(({ tenant }) => tenant);
  expect(order[0]).toBe('light');
  expect(order).toContain('heavy');
});

test('a tenant that asks for much and leaves again and again is not new each time', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 1_000; each++) queue.push(item('steady', { cost: 100 }));
  const served: Item[] = [];
  for (let each = 0; each < 400; each++) {
    if (queue.waitingOf('sly').requests === 0) queue.push(item('sly', { cost: 3_000 }));
    served.push(...take(queue, 1));
  }
  const { steady = 0, sly = 0 } = tokensBy(served, ({ tenant }) => tenant);
  expect(sly - steady).toBeLessThanOrEqual(3_000 + quantumTokens);
});

test('each priority of a tenant has its share, and low ones are served as well', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 500; each++) {
    for (const priority of ['low', 'normal', 'high'] as const) queue.push(item('t', { priority }));
  }
  const tokens = tokensBy(take(queue, 210), ({ priority }) => priority);
  expect(tokens).toEqual({ high: 16_000, normal: 4_000, low: 1_000 });
});

test('a priority is among the keys of one tenant and takes nothing from another', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 200; each++) {
    queue.push(item('modest', { priority: 'low' }));
    queue.push(item('loud', { priority: 'high' }));
  }
  const { modest = 0, loud = 0 } = tokensBy(take(queue, 100), ({ tenant }) => tenant);
  expect(Math.abs(modest - loud)).toBeLessThanOrEqual(2 * quantumTokens);
});

test('one that lost its worker goes first of its tenant', () => {
  const queue = new FairQueue<Item>();
  queue.push(item('t', { id: 'second', priority: 'high' }));
  queue.push(item('t', { id: 'first', goesFirst: true, priority: 'low' }));
  expect(take(queue, 2).map(({ id }) => id)).toEqual(['first', 'second']);
});

test('what does not fit is passed over and keeps its turn', () => {
  const queue = new FairQueue<Item>();
  queue.push(item('large', { id: 'large' }));
  queue.push(item('small', { id: 'small' }));
  expect(queue.next(({ id }) => id !== 'large')?.id).toBe('small');
  expect(queue.next(({ id }) => id !== 'large')).toBeNull();
  expect(queue.next(any)?.id).toBe('large');
  expect(queue.next(any)).toBeNull();
});

test('only a tenant that has used less than its share is in credit', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 3; each++) queue.push(item('t', { cost: 2 * quantumTokens }));
  const credit: boolean[] = [];
  const note = (_: Item, inCredit: boolean): boolean => {
    credit.push(inCredit);
    return inCredit;
  };
  expect(queue.next(note)).not.toBeNull();
  expect(queue.next(note)).toBeNull();
  expect(credit).toEqual([true, false]);
  queue.correct('t', 2 * quantumTokens);
  expect(queue.next(note)).not.toBeNull();
});

test('whatever is added, taken and removed in whatever order, nothing is lost and nothing counted twice', () => {
  const step = fc.record({
    kind: fc.constantFrom('push', 'push', 'next', 'remove', 'correct'),
    tenant: fc.constantFrom('a', 'b', 'c'),
    priority: fc.constantFrom<Priority>('low', 'normal', 'high'),
    cost: fc.integer({ min: 1, max: 5_000 }),
    weight: fc.integer({ min: 1, max: 4 }),
    goesFirst: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const queue = new FairQueue<Item>();
      const waiting = new Set<Item>();
      for (const { kind, ...given } of steps) {
        if (kind === 'push') {
          const added = item(given.tenant, given);
          waiting.add(added);
          queue.push(added);
        } else if (kind === 'correct') queue.correct(given.tenant, given.cost - 2_500);
        else if (kind === 'remove') {
          const [first] = waiting;
          if (first === undefined) continue;
          expect(queue.remove(first)).toBe(true);
          expect(queue.remove(first)).toBe(false);
          waiting.delete(first);
        } else {
          const next = queue.next(any);
          expect(next === null).toBe(waiting.size === 0);
          if (next !== null) expect(waiting.delete(next)).toBe(true);
        }
        expect(queue.size).toBe(waiting.size);
        expect(new Set(queue.items())).toEqual(waiting);
        expect(queue.tokens).toBe([...waiting].reduce((sum, each) => sum + each.cost, 0));
      }
    }),
  );
});

test('keys of a tenant that always wait get tokens by their weights, whatever the sizes', () => {
  const key = fc.record({
    keyWeight: fc.integer({ min: 1, max: 8 }),
    sizes: fc.array(fc.integer({ min: 1, max: 4_000 }), { minLength: 1, maxLength: 4 }),
  });
  fc.assert(
    fc.property(fc.array(key, { minLength: 2, maxLength: 5 }), (keys) => {
      const queue = new FairQueue<Item>();
      const added = keys.map(() => 0);
      const addOne = (index: number): void => {
        const { keyWeight, sizes } = keys[index] ?? { keyWeight: 1, sizes: [] };
        const cost = sizes[(added[index] = (added[index] ?? 0) + 1) % sizes.length] ?? 1;
        queue.push(item('acme', { key: String(index), keyWeight, cost }));
      };
      keys.forEach((_, index) => {
        addOne(index);
        addOne(index);
      });
      const served = keys.map(() => 0);
      for (let each = 0; each < 1_000; each++) {
        const next = queue.next(any);
        const index = Number(next?.key);
        served[index] = (served[index] ?? 0) + (next?.cost ?? 0);
        addOne(index);
      }
      const rounds = keys.map(({ keyWeight }, index) => (served[index] ?? 0) / keyWeight);
      // One request each that goes beyond its share.
      expect(Math.max(...rounds) - Math.min(...rounds)).toBeLessThanOrEqual(2 * 4_000);
    }),
    { numRuns: 50 },
  );
});

test('a key that comes back after a pause is not owed what others had meanwhile', () => {
  const queue = new FairQueue<Item>();
  for (let each = 0; each < 10; each++) queue.push(item('acme', { key: 'busy', id: `b${each}` }));
  take(queue, 5);
  for (let each = 0; each < 5; each++) queue.push(item('acme', { key: 'late', id: `l${each}` }));
  const next = take(queue, 4).map(({ key }) => key);
  expect(next.filter((key) => key === 'late')).toHaveLength(2);
});

test('requests of one key keep their order', () => {
  const queue = new FairQueue<Item>();
  const ids = ['1', '2', '3'];
  for (const id of ids) queue.push(item('acme', { key: 'k', id }));
  expect(take(queue, 3).map(({ id }) => id)).toEqual(ids);
});
