/** The CPU time and memory of a process as Linux counts them, by its pid. */
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessUsage {
  readonly residentMiB: number;
  readonly openFiles: number;
  readonly threads: number;
}

export function processUsage(pid: number): ProcessUsage {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const number = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? Number.NaN);
  return {
    residentMiB: number('VmRSS') / 1_024,
    openFiles: readdirSync(`/proc/${pid}/fd`).length,
    threads: number('Threads'),
  };
}

/** The least-squares slope of the values over their times, per unit of time. */
export function slope(points: readonly { readonly at: number; readonly value: number }[]): number {
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const meanAt = mean(points.map(({ at }) => at));
  const meanValue = mean(points.map(({ value }) => value));
  const covariance = mean(points.map(({ at, value }) => (at - meanAt) * (value - meanValue)));
  return covariance / mean(points.map(({ at }) => (at - meanAt) ** 2));
}
