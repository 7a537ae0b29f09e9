/**
 * `sift soak`: the edge and a worker, each a process of its own, at a steady share of what they can
 * do, for an hour unless told otherwise. At the end there are no faults, every hold is settled, the
 * audit is clean and memory is flat; the figures go to test/bench/results.jsonl.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import type { CommandModule } from '../../infra/program.ts';
import { UsageError } from '../../infra/user-error.ts';
import { recordResult } from '../bench/results.ts';
import { isSound } from '../hostile/soundness.ts';
import { startHostileSystem } from '../hostile/system.ts';
import type { HostileSystem } from '../hostile/system.ts';
import { processUsage, slope } from '../support/process-usage.ts';
import type { ProcessUsage } from '../support/process-usage.ts';
import { seededRandom } from '../support/random.ts';
import { writeToolsModel } from '../support/worker/tools-model.ts';
import { keepLoad, measureCapacity, newTally } from './load.ts';

const sampleMs = 10_000;
const capacityRun = { clients: 32, seconds: 20 };
const slopeMinutesMin = 30;
const slopeMiBPerHourMax = 20;
/** The lowest of so many samples, three minutes of them, counts. */
const lowSamples = 18;
const seed = 12;

interface Sample {
  readonly atHours: number;
  readonly edge: ProcessUsage;
  readonly worker: ProcessUsage;
}

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--minutes <count>', 'minutes that the load lasts', '60')
    .option('--share <part>', 'part of the capacity that is asked for', '0.8')
    .action(async (flags) => {
      const hasHeld = await soak(flags);
      process.exit(hasHeld ? 0 : 1);
    });
};

/** Resolves whether there were no faults, a clean audit and flat memory. */
async function soak(flags: { minutes: string; share: string }): Promise<boolean> {
  const minutes = positive(flags.minutes, '--minutes');
  const share = positive(flags.share, '--share');
  const folder = mkdtempSync(join(tmpdir(), 'sift-soak-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  // The tiny model that also calls tools.
  writeToolsModel(join(folder, 'model'));
  const workerFlags = ['--model', join(folder, 'model')];
  await using system = await startHostileSystem({ workerFlags });
  const callers = await Promise.all(
    ['a', 'b', 'c'].map((name) => system.addTenant(`soak-${name}`)),
  );
  const options = { system, callers, random: seededRandom(seed) };
  // Memory that the first requests take counts for nothing.
  await measureCapacity(options, { ...capacityRun, seconds: 5 });
  const capacity = await measureCapacity(options, capacityRun);
  const perSecond = capacity * share;
  console.log(
    `capacity ${capacity.toFixed(1)} requests/s; ${perSecond.toFixed(1)} for ${minutes} minutes`,
  );

  const tally = newTally();
  const samples: Sample[] = [];
  const beganMs = performance.now();
  const look = (): void => void samples.push(sampleOf(system, beganMs));
  look();
  const timer = setInterval(look, sampleMs);
  try {
    await keepLoad(options, { perSecond, seconds: minutes * 60, tally });
  } finally {
    clearInterval(timer);
  }
  look();
  const verdict = await isSound(system, { marks: { edge: 0, worker: 0 }, mayLog: null });
  for (const [fault, count] of tally.faults) console.log(`${count} times: ${fault}`);
  if (verdict !== 'held') console.log(verdict.broken);

  const { faults: _, ...counts } = tally;
  // A short run tells faults; its memory still warms up.
  const slopesPerHour: Readonly<Record<string, number>> =
    minutes >= slopeMinutesMin ? slopes(samples) : {};
  const figures = { requestsPerSecond: perSecond, ...counts, ...growth(samples), ...slopesPerHour };
  const rounded = Object.fromEntries(
    Object.entries(figures).map(([name, value]) => [name, Number(value.toFixed(2))]),
  );
  console.table(rounded);
  recordResult({ benchmark: 'soak', shapes: { minutes, share, seed }, figures: rounded });
  const isFlat = Object.values(slopesPerHour).every((each) => each <= slopeMiBPerHourMax);
  return tally.failed === 0 && verdict === 'held' && isFlat;
}

function sampleOf({ edge, worker }: HostileSystem, beganMs: number): Sample {
  const atHours = (performance.now() - beganMs) / 3_600_000;
  const sample = { atHours, edge: processUsage(edge.pid), worker: processUsage(worker.pid) };
  const shown = [sample.edge, sample.worker].map(
    ({ residentMiB, openFiles, threads }) =>
      `${residentMiB.toFixed(0)} MiB, ${openFiles} files, ${threads} threads`,
  );
  console.log(`${(atHours * 60).toFixed(1)} min: edge ${shown[0]}; worker ${shown[1]}`);
  return sample;
}

function growth(samples: readonly Sample[]) {
  const [first] = samples;
  const last = samples.at(-1);
  if (first === undefined || last === undefined) throw new Error('there are no samples');
  return {
    edgeMiB: last.edge.residentMiB,
    edgeOpenFilesMore: last.edge.openFiles - first.edge.openFiles,
    workerMiB: last.worker.residentMiB,
    workerOpenFilesMore: last.worker.openFiles - first.worker.openFiles,
  };
}

/**
 * Compares the lows of the second half: memory rises between two large garbage collections, some
 * minutes apart, and in the first half caches and heaps find their size.
 */
function slopes(samples: readonly Sample[]) {
  const late = samples.slice(Math.floor(samples.length / 2));
  const slopeOf = (of: 'edge' | 'worker'): number => {
    const lows: { at: number; value: number }[] = [];
    for (let at = 0; at + lowSamples <= late.length; at += lowSamples) {
      const some = late.slice(at, at + lowSamples);
      const value = Math.min(...some.map((sample) => sample[of].residentMiB));
      lows.push({ at: some[0]?.atHours ?? 0, value });
    }
    return slope(lows);
  };
  return { edgeMiBPerHour: slopeOf('edge'), workerMiBPerHour: slopeOf('worker') };
}

/** @throws UsageError */
function positive(text: string, flag: string): number {
  const parsed = z.coerce.number().positive().safeParse(text);
  if (!parsed.success) throw new UsageError(`${flag}: '${text}' is no number above 0`);
  return parsed.data;
}
