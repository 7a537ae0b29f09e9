/** The windows of budgets: days, weeks from Monday and months of a time zone, as instants. */
import { calendarOf } from '../calendar.ts';
import type { Period } from '../tenant/budget-contract.ts';

/** The instants from `startMs` up to, and without, `endMs`. */
export interface WindowDates {
  readonly startMs: number;
  readonly endMs: number;
}

/** The last instant that a date can say: a window without end ends there. */
export const neverMs = 8_640_000_000_000_000;

/** The window of the zone that holds the instant. @throws RangeError if there is no such zone. */
export function windowAt(period: Period, zone: string, atMs: number): WindowDates {
  if (period === 'ever') return { startMs: 0, endMs: neverMs };
  const { dayAt, startOfDay, startOfMonth } = calendarOf(zone);
  const { year, month, day } = dayAt(atMs);
  if (period === 'month') {
    return {
      startMs: startOfMonth({ year, month }),
      endMs: startOfMonth({ year, month: month + 1 }),
    };
  }
  const weekday = new Date(Date.UTC(year, month - 1, day)).getUTCDay();
  const first = period === 'day' ? day : day - ((weekday + 6) % 7);
  const days = period === 'day' ? 1 : 7;
  return {
    startMs: startOfDay({ year, month, day: first }),
    endMs: startOfDay({ year, month, day: first + days }),
  };
}
