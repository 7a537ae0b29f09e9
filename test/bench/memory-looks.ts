/**
 * Looks at a program's memory after a forced collection, each so many requests. What the first of
 * them fill, caches and heaps, counts for nothing.
 */
import { loadavg } from 'node:os';
import { z } from 'zod';
import { processUsage } from '../support/process-usage.ts';
import type { StartedProgram } from '../support/started-program.ts';

/** Arguments of Node for a program that is looked at. */
export const probed = ['--expose-gc', '--import', './test/bench/memory-probe.ts'] as const;
export const looks = 5;
/** The bound on growth from the first look to the last. */
const growthMBMax = 10;
const probeMsMax = 30_000;

const bytes = z.number().transform((value) => Number((value / 1e6).toFixed(1)));
const probeSchema = z.object({
  memoryProbe: z.object({ rss: bytes, heapUsed: bytes, heapTotal: bytes, external: bytes }),
});

/** Sends `looks` times `requestsPerLook` requests, each connection one after another. */
export async function measureGrowth(
  program: StartedProgram,
  load: {
    readonly requestsPerLook: number;
    readonly connections: number;
    readonly askNth: (index: number) => Promise<void>;
  },
): Promise<Record<string, number | string>> {
  const { requestsPerLook, connections } = load;
  const seen: Memory[] = [];
  const beganMs = performance.now();
  let next = 0;
  for (let look = 1; look <= looks; look++) {
    const askOneByOne = async (): Promise<void> => {
      while (next < look * requestsPerLook) await load.askNth(next++);
    };
    await Promise.all(Array.from({ length: connections }, askOneByOne));
    const memory = await lookAt(program);
    seen.push(memory);
    console.log(`${look * requestsPerLook} requests: ${JSON.stringify(memory)}`);
  }
  return report(seen, (looks * requestsPerLook * 1_000) / (performance.now() - beganMs));
}

function report(seen: readonly Memory[], perSecond: number): Record<string, number | string> {
  const [first] = seen;
  const last = seen.at(-1);
  if (first === undefined || last === undefined) throw new Error('memory was not looked at');
  const grownMB = last.residentMB - first.residentMB;
  const residents = seen.map(({ residentMB }, at) => [`residentMBAt${at + 1}`, residentMB]);
  const figures = {
    ...Object.fromEntries(residents),
    grownMB: Number(grownMB.toFixed(1)),
    grownBar: grownMB < growthMBMax ? 'met' : 'not met',
    heapUsedGrownMB: Number((last.heapUsedMB - first.heapUsedMB).toFixed(1)),
    requestsPerSecond: Math.round(perSecond),
    load1m: Number((loadavg()[0] ?? Number.NaN).toFixed(1)),
  };
  console.table(figures);
  return figures;
}

interface Memory {
  readonly residentMB: number;
  readonly heapUsedMB: number;
  readonly heapTotalMB: number;
  readonly externalMB: number;
  readonly openFiles: number;
}

async function lookAt(program: StartedProgram): Promise<Memory> {
  const mark = program.mark();
  process.kill(program.pid, 'SIGUSR2');
  const untilMs = performance.now() + probeMsMax;
  for (;;) {
    const [line] = /^\{"memoryProbe":.*\}\}$/m.exec(program.said(mark)) ?? [];
    if (line !== undefined) {
      const { memoryProbe } = probeSchema.parse(JSON.parse(line));
      const { rss, heapUsed, heapTotal, external } = memoryProbe;
      return {
        residentMB: rss,
        heapUsedMB: heapUsed,
        heapTotalMB: heapTotal,
        externalMB: external,
        openFiles: processUsage(program.pid).openFiles,
      };
    }
    if (performance.now() > untilMs) throw new Error('the program does not tell of its memory');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
