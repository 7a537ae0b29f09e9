/**
 * Reads the tensors that a model needs: neighbours together, several reads side by side, in
 * whatever order they arrive, with memory for a few reads or for one tensor, whichever is larger.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import type { HostMemory } from '../backend/memory.ts';
import type { HostTensor, WeightDtype } from '../backend/weights.ts';
import type { TensorSpec } from './tensor-spec.ts';
import { bf16ToF32 } from '../backend/bfloat16.ts';
import { BufferRing } from './buffer-ring.ts';
import { checkTensors, scaleName } from './check-tensors.ts';
import type { Checkpoint } from './checkpoint.ts';
import { planRuns } from './parts.ts';
import type { Run } from './parts.ts';
import type { StoredTensor } from './safetensors.ts';
import { CheckpointError } from './source.ts';
import type { WeightSource } from './source.ts';

export type OnProgress = (bytesDone: number, bytesTotal: number) => void;

export interface ReadOptions {
  readonly onProgress?: OnProgress | undefined;
  /** The memory that the bytes are read to; the process's own without. */
  readonly memory?: HostMemory | null;
}

/** Neighbouring tensors of one file and the buffer that holds their bytes. */
interface Arrival {
  readonly file: string;
  readonly run: Run<StoredTensor>;
  readonly buffer: Uint8Array<ArrayBuffer>;
}

/**
 * Checks the checkpoint against `specs`, then yields each needed tensor once, fp8 weights with
 * their scales. A tensor's `bytes` begin at a multiple of 8 in their buffer and hold until the next
 * one is asked for. Ends only when the source vouches for every byte. Rejects with a
 * CheckpointError.
 */
export async function* readTensors(
  checkpoint: Checkpoint,
  specs: readonly TensorSpec[],
  options: ReadOptions = {},
): AsyncGenerator<HostTensor, void, void> {
  checkTensors(checkpoint, specs);
  const { source } = checkpoint;
  const { order, scalesOf } = plan(checkpoint, specs);
  /** Scales that were read before their weight; null once the weight has them. */
  const scales = new Map<string, Float32Array | null>();

  for await (const { run, buffer } of arrivals(source, order, options)) {
    for (const tensor of run.items) {
      const bytes = aligned(buffer, tensor.start - run.start, tensor.end - run.start);
      if (scalesOf.has(tensor.name)) {
        if (scales.get(tensor.name) === undefined) {
          scales.set(tensor.name, scaleValues(source, tensor, bytes));
        }
        continue;
      }
      const dtype = weightDtype(tensor);
      const { name, shape } = tensor;
      if (dtype !== 'F8_E4M3') {
        yield { name, dtype, shape, bytes, scales: null };
        continue;
      }
      const own = scales.get(scaleName(name)) ?? (await readScales(checkpoint, scaleName(name)));
      scales.set(scaleName(name), null);
      yield { name, dtype, shape, bytes, scales: own };
    }
  }
  for (const file of new Set(order.map((tensor) => tensor.file))) await source.verify(file);
}

/** Reads the tensors' bytes, as many runs side by side as there are buffers for. */
async function* arrivals(
  source: WeightSource,
  order: readonly StoredTensor[],
  { onProgress, memory = null }: ReadOptions,
): AsyncGenerator<Arrival, void, void> {
  const waiting = [...Map.groupBy(order, (tensor) => tensor.file)].flatMap(([file, tensors]) =>
    planRuns(tensors, source.partBytes).map((run) => ({ file, run })),
  );
  const bytesTotal = waiting.reduce((total, { run }) => total + run.end - run.start, 0);
  let bytesDone = 0;
  // A part has one to two times partBytes, so that somewhat fewer than parallelParts are under way.
  const ring = new BufferRing({
    bytesMax: source.parallelParts * source.partBytes,
    stepBytes: Math.ceil(source.partBytes / 8),
    memory,
  });
  const abort = new AbortController();
  const reads = new Set<Promise<void>>();
  const ready: Arrival[] = [];

  async function read({ file, run, buffer }: Arrival): Promise<void> {
    const readPart = async ({ start, end }: { start: number; end: number }) => {
      const into = buffer.subarray(start - run.start, end - run.start);
      await source.read(file, start, into, abort.signal);
      bytesDone += end - start;
      onProgress?.(bytesDone, bytesTotal);
    };
    await Promise.all(run.parts.map(readPart));
    ready.push({ file, run, buffer });
  }

  try {
    for (let next = 0; next < waiting.length || reads.size + ready.length > 0;) {
      for (; next < waiting.length; next++) {
        const { file, run } = at(waiting, next);
        const buffer = ring.take(run.end - run.start);
        if (buffer === null) break;
        const reading = read({ file, run, buffer });
        // A read that fails stays, for the race to find.
        reads.add(reading);
        reading.then(() => reads.delete(reading)).catch(() => {});
      }
      if (ready.length === 0) await Promise.race(reads);
      const arrival = ready.shift();
      if (arrival === undefined) continue;
      yield arrival;
      ring.give(arrival.buffer);
    }
  } finally {
    abort.abort();
    await Promise.allSettled(reads);
    ring.clear();
  }
}

/** The values of an F32 or BF16 tensor, in a buffer of their own. */
export function toFloat32(tensor: Pick<HostTensor, 'name' | 'dtype' | 'bytes'>): Float32Array {
  const copy = tensor.bytes.slice();
  if (tensor.dtype === 'F32') return new Float32Array(copy.buffer);
  assert(tensor.dtype === 'BF16', `${tensor.name} is ${tensor.dtype}, which needs its scales`);
  return bf16ToF32(new Uint16Array(copy.buffer));
}

type WeightShape = Pick<HostTensor, 'name' | 'dtype' | 'shape'>;

/** The needed tensors without their scales, in the order in which they are read. */
export function neededTensors(checkpoint: Checkpoint, specs: readonly TensorSpec[]): WeightShape[] {
  const { order, scalesOf } = plan(checkpoint, specs);
  return order.filter(({ name }) => !scalesOf.has(name)).map(shapeOf);
}

/** The tensors that are there and are not loaded, without their scales. */
export function skippedTensors(
  { tensors }: Checkpoint,
  specs: readonly TensorSpec[],
): WeightShape[] {
  const skipped = specs.filter(({ use }) => use === 'skipped');
  return skipped.flatMap(({ name }) => tensors.get(name) ?? []).map(shapeOf);
}

function shapeOf(tensor: StoredTensor): WeightShape {
  return { name: tensor.name, dtype: weightDtype(tensor), shape: tensor.shape };
}

/** The needed tensors and their scales in the order of their bytes, file by file. */
function plan(
  checkpoint: Checkpoint,
  specs: readonly TensorSpec[],
): { order: StoredTensor[]; scalesOf: ReadonlySet<string> } {
  const order: StoredTensor[] = [];
  const scalesOf = new Set<string>();
  for (const spec of specs) {
    if (spec.use === 'skipped') continue;
    const tensor = stored(checkpoint, spec.name);
    order.push(tensor);
    if (tensor.dtype === 'F8_E4M3') {
      order.push(stored(checkpoint, scaleName(spec.name)));
      scalesOf.add(scaleName(spec.name));
    }
  }
  order.sort((a, b) => (a.file === b.file ? a.start - b.start : a.file < b.file ? -1 : 1));
  return { order, scalesOf };
}

async function readScales(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const tensor = stored(checkpoint, name);
  const bytes = new Uint8Array(tensor.end - tensor.start);
  await checkpoint.source.read(tensor.file, tensor.start, bytes);
  return scaleValues(checkpoint.source, tensor, bytes);
}

function scaleValues(source: WeightSource, tensor: StoredTensor, bytes: Uint8Array): Float32Array {
  const values = toFloat32({ name: tensor.name, dtype: 'F32', bytes });
  const bad = values.findIndex((value) => !(value > 0 && value < Infinity));
  if (bad >= 0) {
    throw new CheckpointError(
      `${source.location}: ${tensor.file}: tensor ${tensor.name} holds the scale ${values[bad]} ` +
        `at ${bad}; scales are positive and finite`,
    );
  }
  return values;
}

function stored(checkpoint: Checkpoint, name: string): StoredTensor {
  const tensor = checkpoint.tensors.get(name);
  assert(tensor !== undefined, `${name} was checked to be in the checkpoint`);
  return tensor;
}

function weightDtype(tensor: StoredTensor): WeightDtype {
  const { dtype } = tensor;
  assert(
    dtype === 'F32' || dtype === 'BF16' || dtype === 'F8_E4M3',
    `the dtype of ${tensor.name} was checked`,
  );
  return dtype;
}

/** Neighbours of odd sizes leave a tensor at any byte; typed arrays want theirs aligned. */
function aligned(buffer: Uint8Array, start: number, end: number): Uint8Array {
  return start % 8 === 0 ? buffer.subarray(start, end) : buffer.slice(start, end);
}
