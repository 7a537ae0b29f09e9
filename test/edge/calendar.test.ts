import fc from 'fast-check';
import { expect, test } from 'vitest';
import { calendarOf, isTimeZone } from '../../edge/calendar.ts';

test.each([
  ['UTC', { year: 2026, month: 11 }, '2026-11-01T00:00:00Z'],
  ['Europe/Berlin', { year: 2026, month: 11 }, '2026-10-31T23:00:00Z'],
  ['Europe/Berlin', { year: 2026, month: 10 }, '2026-09-30T22:00:00Z'],
  ['America/Los_Angeles', { year: 2026, month: 3 }, '2026-03-01T08:00:00Z'],
  ['Asia/Kathmandu', { year: 2026, month: 1 }, '2025-12-31T18:15:00Z'],
  ['Pacific/Kiritimati', { year: 2026, month: 1 }, '2025-12-31T10:00:00Z'],
  ['Europe/Berlin', { year: 2025, month: 13 }, '2025-12-31T23:00:00Z'],
])('in %s the month %o begins at %s', (zone, month, start) => {
  expect(new Date(calendarOf(zone).startOfMonth(month)).toISOString()).toBe(
    start.replace('Z', '.000Z'),
  );
});

test('a day whose midnight is leapt over begins with the leap', () => {
  const start = calendarOf('America/Sao_Paulo').startOfDay({ year: 2018, month: 11, day: 4 });
  expect(new Date(start).toISOString()).toBe('2018-11-04T03:00:00.000Z');
});

test('a day whose midnight comes twice begins with the first', () => {
  const start = calendarOf('America/Havana').startOfDay({ year: 2026, month: 11, day: 1 });
  expect(new Date(start).toISOString()).toBe('2026-11-01T04:00:00.000Z');
});

test('an instant lies between the start of its day and the start of the next', () => {
  const zones = fc.constantFrom('UTC', 'Europe/London', 'America/Havana', 'Australia/Lord_Howe');
  const instants = fc.integer({ min: Date.UTC(2000, 0), max: Date.UTC(2037, 0) });
  fc.assert(
    fc.property(zones, instants, (zone, atMs) => {
      const { dayAt, startOfDay } = calendarOf(zone);
      const day = dayAt(atMs);
      expect(startOfDay(day)).toBeLessThanOrEqual(atMs);
      expect(startOfDay({ ...day, day: day.day + 1 })).toBeGreaterThan(atMs);
    }),
  );
});

test('names of zones are told from other text', () => {
  const names = ['UTC', 'Europe/Berlin', 'Etc/GMT+5', 'America/Argentina/Buenos_Aires'];
  expect(names.filter((name) => !isTimeZone(name))).toEqual([]);
  const others = ['', '+01:00', 'Berlin', 'Europe/Nowhere', ' UTC', 'x'.repeat(200), '../etc'];
  expect(others.filter((name) => isTimeZone(name))).toEqual([]);
});
