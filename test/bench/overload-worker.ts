/** The worker's own view of the overload benchmark: its steps, and each request in its log. */
import { z } from 'zod';
import { secrets } from '../hostile/system.ts';

export interface WorkerSteps {
  readonly atMs: number;
  readonly steps: number;
}

export async function readWorkerSteps(url: string): Promise<WorkerSteps> {
  const headers = { authorization: `Bearer ${secrets.workerToken}` };
  const text = await (await fetch(`${url}/metrics`, { headers })).text();
  const [, steps] = /^sift_engine_steps_total (\d+)/m.exec(text) ?? [];
  if (steps === undefined) throw new Error('the worker does not say how many steps it took');
  return { atMs: performance.now(), steps: Number(steps) };
}

/** The length of a step, of a worker that was never without work between the two. */
export function stepMsOf(before: WorkerSteps, after: WorkerSteps): number {
  return (after.atMs - before.atMs) / (after.steps - before.steps);
}

const lineSchema = z.looseObject({ requestId: z.string(), firstTokenMs: z.number() });

/** From a request's arrival at the worker to its first token, by the request's id. */
export function readWorkerTimes(log: string): ReadonlyMap<string, number> {
  const times = new Map<string, number>();
  for (const line of log.split('\n')) {
    if (!line.includes('"firstTokenMs"') || !line.endsWith('}')) continue;
    const parsed = lineSchema.safeParse(JSON.parse(line));
    if (parsed.success) times.set(parsed.data.requestId, parsed.data.firstTokenMs);
  }
  return times;
}
