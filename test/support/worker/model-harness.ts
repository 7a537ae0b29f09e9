/**
 * Runs a model the way an engine does, and keeps everything that it says: sequences in chunks, in
 * any company, with their cache blocks scattered over the pool.
 */
import { at } from '../../../gpu-worker/at.ts';
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import { blockTokens } from '../../../gpu-worker/backend/batch.ts';
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import { openCpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import type { ModelConfig } from '../../../gpu-worker/model/mla-moe/config.ts';
import type { Model } from '../../../gpu-worker/model/model.ts';
import type { LatentFormat, NumericsName } from '../../../gpu-worker/model/mla-moe/numerics.ts';
import type { Absorption } from '../../../gpu-worker/backend/attention-plan.ts';
import { openModel } from '../../../gpu-worker/open-model.ts';
import { argmax } from './golden.ts';
import { seededRandom } from '../random.ts';

export interface OpenOptions {
  readonly numerics?: NumericsName;
  readonly attention?: 'sparse' | 'dense';
  readonly absorb?: Absorption;
  readonly threads?: number;
  readonly rowsMax?: number;
  readonly blocks?: number;
  readonly latents?: LatentFormat;
  /** Loads the MTP module. */
  readonly drafts?: boolean;
  /** Stands between model and backend, for tests that change an op. */
  wrap?(backend: Backend): Backend;
}

export interface OpenedModel {
  readonly model: Model;
  readonly config: ModelConfig;
  close(): Promise<void>;
}

/**
 * Opens a checkpoint directory on the CPU backend; sparse, absorbed float32 unless told otherwise.
 */
export async function openForTest(
  directory: string,
  options: OpenOptions = {},
): Promise<OpenedModel> {
  const { rowsMax = 256, threads = 1 } = options;
  const { model, config, backend } = await openModel({
    location: directory,
    compute: {
      numerics: options.numerics ?? 'f32',
      latents: options.latents,
      attention: options.attention ?? 'sparse',
    },
    limits: { rowsMax, logitRowsMax: rowsMax },
    drafts: options.drafts ?? false,
    openBackend: async (numerics) => {
      const opened = await openCpuBackend({ numerics, rowsMax, threads, absorb: options.absorb });
      return options.wrap?.(opened) ?? opened;
    },
    blocks: options.blocks ?? 24,
  });
  return { model, config, close: () => backend.close() };
}

/** One step of a schedule: how many tokens each of some sequences goes forward, in this order. */
export type Step = readonly { readonly sequence: number; readonly count: number }[];

/** A model's output for one sequence. */
export interface Transcript {
  /** [position][vocabulary] */
  readonly logits: Float32Array[];
  /** [layer][position] */
  readonly selected: Int32Array[][];
  /** [stage][position][hidden] */
  readonly hidden: Float32Array[][];
}

export interface RunOptions {
  readonly schedule: readonly Step[];
  /** Seeds the choice of the sequences' physical blocks. */
  readonly blockSeed?: number;
}

/** Runs all sequences by the schedule, which has to take each of them to its end. */
export function runSchedule(
  { model, config }: OpenedModel,
  sequences: readonly (readonly number[])[],
  { schedule, blockSeed = 1 }: RunOptions,
): Transcript[] {
  const transcripts = sequences.map((): Transcript => ({
    logits: [],
    selected: config.indexer === null ? [] : Array.from({ length: config.layers }, () => []),
    hidden: Array.from({ length: config.layers + 1 }, () => []),
  }));
  const blockTables = scatterBlocks(sequences, { blocks: model.blocks, seed: blockSeed });
  const done = sequences.map(() => 0);
  for (const step of schedule) {
    const owners = step.flatMap(({ sequence, count }) => Array<number>(count).fill(sequence));
    model.forward(buildBatch(step, { sequences, done, blockTables }), {
      hidden: (stage, states) =>
        owners.forEach((owner, row) =>
          at(at(transcripts, owner).hidden, stage).push(rowOf(states, row, owners.length)),
        ),
      selection: (layer, rows) =>
        rows.forEach((row, i) =>
          at(at(transcripts, at(owners, i)).selected, layer).push(row.slice()),
        ),
    });
    const logits = model.logits(Int32Array.from(owners.keys()));
    owners.forEach((owner, row) =>
      at(transcripts, owner).logits.push(rowOf(logits, row, owners.length)),
    );
    for (const { sequence, count } of step) done[sequence] = at(done, sequence) + count;
  }
  return transcripts;
}

/**
 * Runs all sequences by the schedule as an engine does: unseen, and told only the most likely next
 * token of each row.
 */
export function drawSchedule(
  model: Model,
  sequences: readonly (readonly number[])[],
  { schedule, blockSeed = 1 }: RunOptions,
): (number | null)[][] {
  const tokens = sequences.map((): (number | null)[] => []);
  const blockTables = scatterBlocks(sequences, { blocks: model.blocks, seed: blockSeed });
  const done = sequences.map(() => 0);
  for (const step of schedule) {
    const owners = step.flatMap(({ sequence, count }) => Array<number>(count).fill(sequence));
    model.forward(buildBatch(step, { sequences, done, blockTables }));
    const draws = owners.map(() => ({ temperature: 0, topK: 0, topP: 1, minP: 0, unit: 0 }));
    const drawn = model.sample(Int32Array.from(owners.keys()), draws);
    owners.forEach((owner, row) => at(tokens, owner).push(at(drawn, row)));
    for (const { sequence, count } of step) done[sequence] = at(done, sequence) + count;
  }
  return tokens;
}

interface Progress {
  readonly sequences: readonly (readonly number[])[];
  /** Tokens of each sequence that earlier steps computed. */
  readonly done: readonly number[];
  readonly blockTables: readonly Int32Array[];
}

/** Block tables list only the sequences of this step, so that their numbers are not their own. */
export function buildBatch(step: Step, { sequences, done, blockTables }: Progress): Batch {
  const rows = step.flatMap(({ sequence, count }, index) =>
    Array.from({ length: count }, (_, i) => ({
      index,
      sequence,
      position: at(done, sequence) + i,
    })),
  );
  const slotOf = (sequence: number, position: number) =>
    at(at(blockTables, sequence), Math.floor(position / blockTokens)) * blockTokens +
    (position % blockTokens);
  return {
    tokens: Int32Array.from(rows, ({ sequence, position }) =>
      at(at(sequences, sequence), position),
    ),
    positions: Int32Array.from(rows, ({ position }) => position),
    slots: Int32Array.from(rows, ({ sequence, position }) => slotOf(sequence, position)),
    sequences: Int32Array.from(rows, ({ index }) => index),
    blockTables: step.map(({ sequence, count }) =>
      at(blockTables, sequence).slice(0, Math.ceil((at(done, sequence) + count) / blockTokens)),
    ),
  };
}

/** Gives every sequence the blocks it needs, in random order from the whole pool. */
export function scatterBlocks(
  sequences: readonly (readonly number[])[],
  { blocks, seed }: { blocks: number; seed: number },
): Int32Array[] {
  const random = seededRandom(seed);
  const free = Array.from({ length: blocks }, (_, block) => block);
  return sequences.map(({ length }) =>
    Int32Array.from({ length: Math.ceil(length / blockTokens) }, () => {
      const [block] = free.splice(random.integer(0, free.length - 1), 1);
      if (block === undefined) throw new Error(`${blocks} blocks are too few for these sequences`);
      return block;
    }),
  );
}

function rowOf(values: Float32Array, row: number, rows: number): Float32Array {
  const columns = values.length / rows;
  return values.slice(row * columns, (row + 1) * columns);
}

/** A schedule of one sequence alone, `chunk` tokens a step. */
export function inChunks(length: number, chunk: number): Step[] {
  const steps: Step[] = [];
  for (let start = 0; start < length; start += chunk) {
    steps.push([{ sequence: 0, count: Math.min(chunk, length - start) }]);
  }
  return steps;
}

/** A schedule in which sequences come, go on by chunks or single tokens, or wait, at random. */
export function interleaved(
  lengths: readonly number[],
  { seed, chunkMax }: { seed: number; chunkMax: number },
): Step[] {
  const random = seededRandom(seed);
  const left = [...lengths];
  const steps: Step[] = [];
  while (left.some((count) => count > 0)) {
    const step: { sequence: number; count: number }[] = [];
    left.forEach((count, sequence) => {
      if (count === 0 || random.uniform() < 0.3) return;
      const wanted = random.uniform() < 0.5 ? 1 : random.integer(2, chunkMax);
      step.push({ sequence, count: Math.min(wanted, count) });
      left[sequence] = count - Math.min(wanted, count);
    });
    if (step.length > 0) steps.push(step);
  }
  return steps;
}

/** Runs one sequence in one step. */
export function runAlone(opened: OpenedModel, tokens: readonly number[]): Transcript {
  const schedule = inChunks(tokens.length, tokens.length);
  return at(runSchedule(opened, [tokens], { schedule }), 0);
}

/** `count` greedy tokens after the prompt, the prompt in one step and then a token a step. */
export function continueGreedily(
  { model }: OpenedModel,
  prompt: readonly number[],
  count: number,
): number[] {
  const tokens = [...prompt];
  const blockTables = scatterBlocks([Array(prompt.length + count).fill(0)], {
    blocks: model.blocks,
    seed: 3,
  });
  let done = 0;
  for (let i = 0; i < count; i++) {
    const step = [{ sequence: 0, count: tokens.length - done }];
    model.forward(buildBatch(step, { sequences: [tokens], done: [done], blockTables }));
    const last = Int32Array.of(tokens.length - done - 1);
    done = tokens.length;
    tokens.push(argmax(model.logits(last)));
  }
  return tokens.slice(prompt.length);
}
