/**
 * Calendars of time zones: the instants at which local days and months begin, daylight saving
 * included.
 */
import { strict as assert } from 'node:assert';

/** A day; the month is 1 to 12. A day past the end of its month is one of the next. */
export interface CalendarDay {
  readonly year: number;
  readonly month: number;
  readonly day: number;
}

const hourMs = 3_600_000;

/** true for a name of the IANA time zone database, such as `Europe/Berlin` or `UTC`. */
export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}

export interface Calendar {
  /**
   * The first instant of a day. Where clocks leap over midnight, the day begins with the leap;
   * where midnight comes twice, with the first.
   */
  startOfDay(day: CalendarDay): number;
  startOfMonth(month: Omit<CalendarDay, 'day'>): number;
  /** The day that it is at an instant. */
  dayAt(atMs: number): CalendarDay;
}

/** The calendar of a zone, which takes much longer to make than to ask. @throws RangeError */
export function calendarOf(zone: string): Calendar {
  const offsetAt = offsetsOf(zone);
  const startOfDay = ({ year, month, day }: CalendarDay): number => {
    const wanted = Date.UTC(year, month - 1, day);
    // No zone changes its offset twice in so short a time, so one of the two is in force.
    const offsets = [wanted - 36 * hourMs, wanted + 36 * hourMs].map(offsetAt);
    const starts = offsets
      .map((offset) => wanted - offset)
      .filter((atMs) => atMs + offsetAt(atMs) >= wanted);
    assert(starts.length > 0, 'a day begins at the smaller of two offsets at the latest');
    return Math.min(...starts);
  };
  return {
    startOfDay,
    startOfMonth: (month) => startOfDay({ ...month, day: 1 }),
    dayAt(atMs) {
      const local = new Date(atMs + offsetAt(atMs));
      return {
        year: local.getUTCFullYear(),
        month: local.getUTCMonth() + 1,
        day: local.getUTCDate(),
      };
    },
  };
}

/** Returns the milliseconds by which the zone's clocks are ahead of UTC at an instant. */
function offsetsOf(zone: string): (atMs: number) => number {
  if (zone === 'UTC') return () => 0;
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    calendar: 'gregory',
    numberingSystem: 'latn',
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  return (atMs) => {
    const parts = format.formatToParts(atMs);
    const part = (type: Intl.DateTimeFormatPartTypes) =>
      Number(parts.find((each) => each.type === type)?.value);
    const minute = Date.UTC(
      part('year'),
      part('month') - 1,
      part('day'),
      part('hour'),
      part('minute'),
    );
    return minute + part('second') * 1_000 - Math.floor(atMs / 1_000) * 1_000;
  };
}
