import fc from 'fast-check';
import { expect, test } from 'vitest';
import { neverMs, windowAt } from '../../../edge/ledger/budget-windows.ts';

const hourMs = 60 * 60_000;
const at = (text: string) => Date.parse(text);

function texts(period: 'day' | 'week' | 'month', zone: string, instant: string) {
  const { startMs, endMs } = windowAt(period, zone, at(instant));
  return [new Date(startMs).toISOString(), new Date(endMs).toISOString()];
}

test('days, weeks from Monday and months of UTC begin at midnight', () => {
  const noon = '2026-12-01T12:00:00Z';
  expect(texts('day', 'UTC', noon)).toEqual([
    '2026-12-01T00:00:00.000Z',
    '2026-12-02T00:00:00.000Z',
  ]);
  expect(texts('week', 'UTC', noon)).toEqual([
    '2026-11-30T00:00:00.000Z',
    '2026-12-07T00:00:00.000Z',
  ]);
  expect(texts('month', 'UTC', noon)).toEqual([
    '2026-12-01T00:00:00.000Z',
    '2027-01-01T00:00:00.000Z',
  ]);
});

test('a window holds its first instant and not its last', () => {
  const midnight = at('2026-12-01T00:00:00Z');
  expect(windowAt('day', 'UTC', midnight).startMs).toBe(midnight);
  expect(windowAt('day', 'UTC', midnight - 1).endMs).toBe(midnight);
});

test('a day on which clocks change has 23 or 25 hours', () => {
  const spring = windowAt('day', 'Europe/Berlin', at('2026-03-29T12:00:00Z'));
  expect(spring.endMs - spring.startMs).toBe(23 * hourMs);
  const autumn = windowAt('day', 'Europe/Berlin', at('2026-10-25T12:00:00Z'));
  expect(autumn.endMs - autumn.startMs).toBe(25 * hourMs);
  expect(texts('month', 'America/New_York', '2026-03-15T00:00:00Z')).toEqual([
    '2026-03-01T05:00:00.000Z',
    '2026-04-01T04:00:00.000Z',
  ]);
});

test('a day whose midnight the clocks leave out begins at one', () => {
  expect(texts('day', 'Africa/Cairo', '2026-04-24T12:00:00Z')).toEqual([
    '2026-04-23T22:00:00.000Z',
    '2026-04-24T21:00:00.000Z',
  ]);
});

test('a day that a zone leaves out is no window', () => {
  const before = windowAt('day', 'Pacific/Apia', at('2011-12-30T09:59:00Z'));
  const after = windowAt('day', 'Pacific/Apia', at('2011-12-30T10:00:00Z'));
  expect(before.endMs).toBe(after.startMs);
});

test('what never begins anew holds every instant', () => {
  expect(windowAt('ever', 'UTC', at('2026-12-01T12:00:00Z'))).toEqual({
    startMs: 0,
    endMs: neverMs,
  });
});

test('every instant lies in its window, and all of a window say the same', () => {
  const zones = [
    'UTC',
    'Europe/Berlin',
    'America/St_Johns',
    'Asia/Kathmandu',
    'Pacific/Kiritimati',
  ];
  fc.assert(
    fc.property(
      fc.constantFrom('day' as const, 'week' as const, 'month' as const),
      fc.constantFrom(...zones),
      fc.integer({ min: at('2012-01-01T00:00:00Z'), max: at('2040-01-01T00:00:00Z') }),
      (period, zone, nowMs) => {
        const window = windowAt(period, zone, nowMs);
        expect(window.startMs).toBeLessThanOrEqual(nowMs);
        expect(window.endMs).toBeGreaterThan(nowMs);
        expect(windowAt(period, zone, window.startMs)).toEqual(window);
        expect(windowAt(period, zone, window.endMs - 1)).toEqual(window);
        expect(windowAt(period, zone, window.endMs).startMs).toBe(window.endMs);
      },
    ),
  );
});
