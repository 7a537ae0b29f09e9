import { describe, expect, test } from 'vitest';
import type { HostMemory } from '../../../gpu-worker/backend/memory.ts';
import type { HostTensor } from '../../../gpu-worker/backend/weights.ts';
import type { TensorSpec } from '../../../gpu-worker/weights/tensor-spec.ts';
import { openCheckpoint } from '../../../gpu-worker/weights/checkpoint.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { readTensors, toFloat32 } from '../../../gpu-worker/weights/read-tensors.ts';
import { CheckpointError } from '../../../gpu-worker/weights/source.ts';
import type { WeightSource } from '../../../gpu-worker/weights/source.ts';
import {
  bf16,
  directoryWith,
  f32,
  fp8,
  safetensors,
} from '../../support/weights/published-layouts.ts';
import type { FixtureTensor } from '../../support/weights/published-layouts.ts';

function matrix(name: string, shape: readonly number[], use: TensorSpec['use'] = 'needed') {
  return { name, shape, role: 'matrix', use } as const;
}

/** A source with these tensors in one file, which also logs the byte counts of its reads. */
async function sourceOf(...tensors: FixtureTensor[]): Promise<WeightSource & { reads: number[] }> {
  const source = await openDirectory(
    await directoryWith({ 'config.json': '{}', 'model.safetensors': safetensors(tensors) }),
  );
  const reads: number[] = [];
  return {
    ...source,
    reads,
    read(name, start, into) {
      reads.push(into.length);
      return source.read(name, start, into);
    },
  };
}

/** Copies, since a tensor's bytes hold only until the next one. */
async function readAll(source: WeightSource, specs: readonly TensorSpec[]): Promise<HostTensor[]> {
  const tensors: HostTensor[] = [];
  for await (const tensor of readTensors(await openCheckpoint(source), specs)) {
    tensors.push({ ...tensor, bytes: tensor.bytes.slice() });
  }
  return tensors;
}

async function refusal(tensors: FixtureTensor[], specs: readonly TensorSpec[]): Promise<string> {
  const error: unknown = await readAll(await sourceOf(...tensors), specs).then(
    () => 'accepted',
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return error instanceof Error ? error.message : '';
}

const scale = (shape: readonly number[], values: readonly number[]) =>
  f32('w_scale_inv', shape, values);

describe('reading tensors', () => {
  test('yields every needed tensor once, with its bytes', async () => {
    const source = await sourceOf(
      f32('b', [1, 2], [1, 2]),
      bf16('a', [3], [3, 4, 5]),
      f32('skipped', [1], [0]),
      fp8('c', [2, 1], [9, 8]),
      f32('c_scale_inv', [1, 1], [0.5]),
    );
    const tensors = await readAll(source, [
      { name: 'a', shape: [3], role: 'vector', use: 'needed' },
      matrix('b', [1, 2]),
      matrix('c', [2, 1]),
      matrix('skipped', [1], 'skipped'),
      matrix('absent', [1], 'skipped'),
    ]);
    const [a, b, c] = tensors.toSorted((one, other) => (one.name < other.name ? -1 : 1));
    expect(tensors).toHaveLength(3);
    expect(b && toFloat32(b)).toEqual(new Float32Array([1, 2]));
    expect(a && toFloat32(a)).toEqual(new Float32Array([3, 4, 5]));
    expect(c).toEqual({
      name: 'c',
      dtype: 'F8_E4M3',
      shape: [2, 1],
      bytes: Uint8Array.from([9, 8]),
      scales: new Float32Array([0.5]),
    });
  });

  test('gives an fp8 weight its scales whether they stand before it, after it or far away', async () => {
    const far = fp8('far', [1, 1], [1]);
    const source = await sourceOf(
      far,
      f32('before_scale_inv', [1, 1], [1]),
      fp8('before', [1, 1], [2]),
      fp8('after', [1, 1], [3]),
      f32('after_scale_inv', [1, 1], [2]),
      f32('unneeded', [1, 1], [0]),
      f32('far_scale_inv', [1, 1], [3]),
    );
    const tensors = await readAll(source, [
      matrix('before', [1, 1]),
      matrix('after', [1, 1]),
      matrix('far', [1, 1]),
      matrix('unneeded', [1, 1], 'skipped'),
    ]);
    const scales = Object.fromEntries(tensors.map((tensor) => [tensor.name, tensor.scales]));
    expect(scales).toEqual({
      far: Float32Array.of(3),
      before: Float32Array.of(1),
      after: Float32Array.of(2),
    });
  });

  test('gives scales of partial blocks, and of another shard', async () => {
    const codes = Array.from({ length: 129 * 257 }, (_, i) => i % 120);
    const path = await directoryWith({
      'config.json': '{}',
      'model.safetensors.index.json': {
        weight_map: { w: '1.safetensors', w_scale_inv: '2.safetensors' },
      },
      '1.safetensors': safetensors([fp8('w', [129, 257], codes)]),
      '2.safetensors': safetensors([scale([2, 3], [1, 2, 3, 4, 5, 6])]),
    });
    const [tensor] = await readAll(await openDirectory(path), [matrix('w', [129, 257])]);
    expect(tensor?.scales).toEqual(new Float32Array([1, 2, 3, 4, 5, 6]));
    expect(tensor?.bytes).toEqual(Uint8Array.from(codes));
  });

  test('reads small neighbours together and large tensors in parts, and reports each part', async () => {
    const large = new Uint8Array(20 * 2 ** 20).map((_, i) => (i * 31) >> 3);
    const source = await sourceOf(
      { name: 'a', dtype: 'BF16', shape: [1], bytes: Uint8Array.of(1, 2) },
      { name: 'b', dtype: 'F32', shape: [1], bytes: Uint8Array.of(3, 4, 5, 6) },
      { name: 'large', dtype: 'F32', shape: [large.length / 4], bytes: large },
      { name: 'z', dtype: 'F32', shape: [1], bytes: Uint8Array.of(7, 8, 9, 10) },
    );
    const checkpoint = await openCheckpoint(source);
    source.reads.length = 0;
    const progress: number[] = [];
    const specs = [...checkpoint.tensors.values()].map(({ name, shape }) => matrix(name, shape));
    let alike = true;
    const onProgress = (done: number, total: number) => {
      progress.push(done);
      expect(total).toBe(large.length + 10);
    };
    for await (const { name, bytes } of readTensors(checkpoint, specs, { onProgress })) {
      expect(bytes.byteOffset % 8).toBe(0);
      if (name === 'large') alike = Buffer.compare(bytes, large) === 0;
      if (name === 'b') expect([...bytes]).toEqual([3, 4, 5, 6]);
    }
    expect(alike).toBe(true);
    const mib = 2 ** 20;
    expect(source.reads).toEqual([6, 10 * mib, 10 * mib, 4]);
    expect(progress).toHaveLength(4);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.at(-1)).toBe(10 + 20 * mib);
  });

  test('reads into the memory that it is given, and leaves none of it behind', async () => {
    const source = await sourceOf(f32('a', [2], [1, 2]), f32('b', [1], [3]));
    const checkpoint = await openCheckpoint(source);
    const held = new Set<ArrayBufferLike>();
    const memory: HostMemory = {
      allocate: (bytes) => {
        const buffer = new Uint8Array(bytes);
        held.add(buffer.buffer);
        return buffer;
      },
      free: ({ buffer }) => expect(held.delete(buffer)).toBe(true),
    };
    const specs = [matrix('a', [2]), matrix('b', [1])];
    let seen = 0;
    for await (const { bytes } of readTensors(checkpoint, specs, { memory })) {
      expect(held.has(bytes.buffer)).toBe(true);
      seen += bytes.length;
    }
    expect(seen).toBe(12);
    expect(held.size).toBe(0);
    for await (const { bytes } of readTensors(checkpoint, specs, { memory })) {
      expect(held.has(bytes.buffer)).toBe(true);
      break;
    }
    expect(held.size).toBe(0);
  });

  test('can be left half way', async () => {
    const source = await sourceOf(f32('a', [1], [1]), f32('b', [1], [2]));
    const checkpoint = await openCheckpoint(source);
    for await (const tensor of readTensors(checkpoint, [matrix('a', [1]), matrix('b', [1])])) {
      expect(tensor.name).toBe('a');
      break;
    }
  });

  test('turns every bfloat16 into the float32 with the same upper half', () => {
    const codes = Uint16Array.from({ length: 2 ** 16 }, (_, code) => code);
    const values = toFloat32({ name: 'all', dtype: 'BF16', bytes: new Uint8Array(codes.buffer) });
    const bits = new Uint32Array(values.buffer);
    expect(bits.every((value, code) => value === code * 2 ** 16)).toBe(true);
  });
});

describe('a checkpoint is refused', () => {
  test('when it lacks a tensor that the model needs', async () => {
    const specs = [matrix('a', [1]), matrix('b', [1]), matrix('c', [1])];
    const message = await refusal([f32('a', [1], [1])], specs);
    expect(message).toContain('lacks the tensor b, and 1 more');
  });

  test('when it holds a tensor that the model has no use for', async () => {
    const message = await refusal([f32('a', [1], [1]), f32('x', [1], [1])], [matrix('a', [1])]);
    expect(message).toMatch(/holds a tensor that the model has no use for: x$/);
  });

  test.each(['needed', 'skipped'] as const)('when a %s tensor has a wrong shape', async (use) => {
    const message = await refusal(
      [f32('a', [2, 3], [1, 2, 3, 4, 5, 6])],
      [matrix('a', [3, 2], use)],
    );
    expect(message).toContain('model.safetensors: tensor a has the shape [2, 3]');
    expect(message).toContain('config.json makes it [3, 2]');
  });

  test('when a tensor has as many elements in another number of axes', async () => {
    expect(await refusal([f32('a', [2, 1], [1, 2])], [matrix('a', [2])])).toContain('[2, 1]');
  });

  test.each([
    ['f32-matrix', 'F8_E4M3', 'it may be F32 or BF16'],
    ['vector', 'F8_E4M3', 'it may be F32 or BF16'],
    ['matrix', 'I8', 'it may be F32 or BF16 or F8_E4M3'],
  ] as const)('when a %s is %s', async (role, dtype, problem) => {
    // A dtype of the format that no weight may have.
    const tensor = { ...fp8('w', [1], [1]), dtype: dtype as 'F8_E4M3' };
    const message = await refusal([tensor], [{ name: 'w', shape: [1], role, use: 'needed' }]);
    expect(message).toContain(`tensor w has the dtype ${dtype}; ${problem}`);
  });

  test('when an fp8 weight has no scales', async () => {
    const message = await refusal([fp8('w', [1, 1], [1])], [matrix('w', [1, 1])]);
    expect(message).toContain('lacks the tensor w_scale_inv');
  });

  test('when there are scales for a weight that is not fp8', async () => {
    const tensors = [f32('w', [1, 1], [1]), scale([1, 1], [1])];
    expect(await refusal(tensors, [matrix('w', [1, 1])])).toContain('no use for: w_scale_inv');
  });

  test('when scales have a wrong shape, the floor of the blocks for instance', async () => {
    const weight = fp8('w', [129, 1], Array<number>(129).fill(1));
    const message = await refusal([weight, scale([1, 1], [1])], [matrix('w', [129, 1])]);
    expect(message).toContain('tensor w_scale_inv has the shape [1, 1]');
    expect(message).toContain('scales of [2, 1]');
  });

  test('when scales are not F32', async () => {
    const tensors = [fp8('w', [1, 1], [1]), bf16('w_scale_inv', [1, 1], [1])];
    expect(await refusal(tensors, [matrix('w', [1, 1])])).toContain('scales are F32');
  });

  test.each([0, -1, Number.NaN, Infinity])('when a scale is %d', async (value) => {
    const weight = fp8('w', [1, 129], Array<number>(129).fill(1));
    const message = await refusal([weight, scale([1, 2], [1, value])], [matrix('w', [1, 129])]);
    expect(message).toContain(`tensor w_scale_inv holds the scale ${value} at 1`);
  });
});
