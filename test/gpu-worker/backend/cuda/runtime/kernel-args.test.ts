import { describe, expect, test } from 'vitest';
import {
  packArgs,
  parseKernelArgs,
} from '../../../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import type { KernelArgs } from '../../../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import { programs, readSource } from '../../../../../gpu-worker/backend/cuda/runtime/kernels.ts';

const source = `
struct __align__(8) real { float v; };
/** Comments; with { braces }. */
struct Pair {
  const int* at;  // [rows], a comment
  i64 stride;
};
struct __align__(64) Map { u64 words[16]; };
struct Base {
  float* out;  // null: none
  int count, first;
  real scale;
  float bias;
  Pair pair;
};
struct Args : Base {
  int odd;
  Map map;
};
extern "C" __global__ void __launch_bounds__(128) plain(const __grid_constant__ Base a) { }
extern "C" __global__ void
mapped(const __grid_constant__ Args a) { }
`;

const kernels = parseKernelArgs(source);
const base = { out: 2 ** 40 + 5, count: 7, first: 9, scale: 0.5, bias: -1 };
const pair = { at: null, stride: 3 };

function layoutOf(kernel: string) {
  const layout = kernels.get(kernel);
  if (layout === undefined) throw new Error(`there is no kernel ${kernel}`);
  return layout;
}

function packed(kernel: string, args: KernelArgs): Uint32Array {
  const layout = layoutOf(kernel);
  const words = new Uint32Array(layout.bytes / 4);
  packArgs(kernel, layout, args, { words, start: 0 });
  return words;
}

test('fields lie where a C compiler puts them, with padding before, between and behind', () => {
  const offsets = (kernel: string) =>
    layoutOf(kernel).fields.map(({ name, offset }) => `${name} ${offset}`);
  expect(offsets('plain')).toEqual([
    'out 0',
    'count 8',
    'first 12',
    'scale 16',
    'bias 24',
    'pair 32',
  ]);
  expect(layoutOf('plain').bytes).toBe(48);
  expect(offsets('mapped').slice(-2)).toEqual(['odd 48', 'map 64']);
  expect(layoutOf('mapped')).toMatchObject({ bytes: 192, alignment: 64 });
});

test('values are packed by the types of their fields', () => {
  const words = packed('plain', { ...base, pair });
  const floats = new Float32Array(words.buffer);
  expect(Array.from(words.subarray(0, 4))).toEqual([5, 256, 7, 9]);
  expect([floats[4], words[5], floats[6], words[7]]).toEqual([0.5, 0, -1, 0]);
  expect(Array.from(words.subarray(8))).toEqual([0, 0, 3, 0]);
});

test('words are taken as they are, if they are as many as the field has', () => {
  const map = Uint32Array.from({ length: 32 }, (_, i) => i + 1);
  const words = packed('mapped', { ...base, pair, odd: 1, map });
  expect(words.slice(16)).toEqual(map);
  const short = { ...base, pair, odd: 1, map: map.subarray(1) };
  expect(() => packed('mapped', short)).toThrow('argument map takes no 31 words');
});

describe('an error names the argument that', () => {
  test('is missing', () => {
    const { count: _, ...rest } = base;
    expect(() => packed('plain', { ...rest, pair })).toThrow(
      'kernel plain: argument count is missing',
    );
    expect(() => packed('plain', { ...base, pair: { at: 1 } })).toThrow(
      'argument stride is missing',
    );
  });

  test('the kernel does not have', () => {
    expect(() => packed('plain', { ...base, pair, rows: 1 })).toThrow(
      'kernel plain has no argument rows',
    );
  });

  test('is no number, or no struct', () => {
    expect(() => packed('plain', { ...base, pair: 1 })).toThrow('argument pair is no number');
    expect(() => packed('plain', { ...base, count: pair, pair })).toThrow('count is no struct');
  });
});

test('a field of a type that is not known is refused', () => {
  const unknown = 'struct A { short x; };\nvoid k(const __grid_constant__ A a) {}';
  expect(() => parseKernelArgs(unknown)).toThrow('A.x has the unknown type short');
});

test.each(Object.keys(programs) as (keyof typeof programs)[])(
  'the arguments of every kernel of %s are read from its sources',
  (program) => {
    const text = ['prelude.cuh', ...programs[program]].map(readSource).join('\n');
    const args = [...parseKernelArgs(text).values()];
    expect(args.length).toBeGreaterThan(0);
    expect(args).toHaveLength(text.split('extern "C" __global__').length - 1);
    for (const { fields } of args) expect(fields.length).toBeGreaterThan(0);
  },
);
