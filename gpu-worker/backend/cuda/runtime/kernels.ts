/**
 * The kernels by name: which source files make them, how they are specialised, and their loading.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { readCudaSettings } from '../cuda-settings.ts';
import { cachedCubin, cubinKey } from './cubin-cache.ts';
import type { Driver, Handle } from './driver.ts';
import { parseKernelArgs } from './kernel-args.ts';
import type { StructLayout } from './kernel-args.ts';
import { Compiler } from './nvrtc.ts';

/** Sources that lie beside this file, or beside a bundle of it, in kernels/. */
export const programs = {
  rows: ['rows.cu'],
  norms: ['norms.cu'],
  heads: ['head-rows.cuh', 'heads.cu'],
  caches: ['head-rows.cuh', 'caches.cu'],
  indexScores: ['index-scores.cu'],
  topK: ['top-k.cu'],
  attend: ['attend.cu'],
  moe: ['moe.cu'],
  gemmF32: ['gemm-tiles.cuh', 'gemm-f32.cu'],
  gemmFewF32: ['gemm-tiles.cuh', 'gemm-few-f32.cu'],
  sm90Gemm: ['sm90.cuh', 'sm90-clusters.cuh', 'gemm-tiles.cuh', 'sm90-gemm.cu'],
  sm90GemmFew: ['sm90.cuh', 'sm90-clusters.cuh', 'gemm-tiles.cuh', 'sm90-gemm-few.cu'],
  sparseMlaFp8: [
    'sm90.cuh',
    'sm90-sparse-mla.cuh',
    'sm90-sparse-mla-64.cuh',
    'sm90-sparse-mla-fp8.cu',
  ],
  sparseMlaBf16: [
    'sm90.cuh',
    'dequant-entries.cuh',
    'sm90-sparse-mla.cuh',
    'sm90-sparse-mla-64.cuh',
    'sm90-sparse-mla-bf16.cu',
  ],
  sparseMlaFewFp8: [
    'sm90.cuh',
    'sm90-sparse-mla.cuh',
    'sm90-sparse-mla-few.cuh',
    'sm90-sparse-mla-fp8.cu',
  ],
  sparseMlaFewBf16: [
    'sm90.cuh',
    'dequant-entries.cuh',
    'sm90-sparse-mla.cuh',
    'sm90-sparse-mla-few.cuh',
    'sm90-sparse-mla-bf16.cu',
  ],
  combineSplits: ['sm90.cuh', 'combine-splits.cu'],
  sm90DenseMha: ['sm90.cuh', 'dequant-entries.cuh', 'sm90-dense-mha.cu'],
  sm90Scores: ['sm90.cuh', 'sm90-index-scores.cu'],
  sample: ['sample.cu'],
  random: ['random.cu'],
} as const satisfies Record<string, readonly string[]>;

export type ProgramName = keyof typeof programs;

/** A loaded kernel; `id` is its place in this process, `name` for errors. */
export interface Kernel {
  readonly id: number;
  readonly program: ProgramName;
  readonly name: string;
  readonly handle: Handle;
  readonly args: StructLayout;
  /** Dynamic shared memory that it has been allowed so far. */
  sharedBytes: number;
}

const maxDynamicSharedMemory = 8;
const noDefines = {};

export class Kernels {
  readonly #driver: Driver;
  readonly #architecture: string;
  readonly #defines: readonly string[];
  readonly #modules = new Map<string, Handle>();
  readonly #kernels = new Map<string, Kernel>();
  /** The same kernels by the very object that specialised them: a look-up without making a key. */
  readonly #byDefines = new WeakMap<object, Map<string, Kernel>>();
  #compiler: Compiler | null = null;

  /** `defines` of every program, beside its own. */
  constructor(driver: Driver, architecture: string, defines: readonly string[]) {
    this.#driver = driver;
    this.#architecture = architecture;
    this.#defines = defines;
  }

  /** Kernel `name` of a program specialised by `defines`; compiled at its first use. */
  get(
    program: ProgramName,
    name: string,
    defines: Readonly<Record<string, number>> = noDefines,
  ): Kernel {
    const known = this.#byDefines.get(defines)?.get(name);
    if (known?.program === program) return known;
    const kernel = this.#load(program, name, defines);
    const sameDefines = this.#byDefines.get(defines) ?? new Map<string, Kernel>();
    this.#byDefines.set(defines, sameDefines.set(name, kernel));
    return kernel;
  }

  #load(program: ProgramName, name: string, defines: Readonly<Record<string, number>>): Kernel {
    const flags = Object.entries(defines).map(([key, value]) => `-D${key}=${value}`);
    const moduleKey = [program, ...flags].join(' ');
    const key = `${moduleKey} ${name}`;
    const known = this.#kernels.get(key);
    if (known !== undefined) return known;
    const module = this.#module(program, flags, moduleKey);
    const handle = this.#driver.make('ModuleGetFunction', [module, name], `for kernel ${name}`);
    const id = this.#kernels.size;
    const args = argsOf(program, name);
    const kernel: Kernel = { id, program, name, handle, args, sharedBytes: 48 * 1024 };
    this.#kernels.set(key, kernel);
    return kernel;
  }

  /** Lets a kernel take more dynamic shared memory than the default 48 KiB. */
  allowShared(kernel: Kernel, bytes: number): void {
    if (bytes <= kernel.sharedBytes) return;
    this.#driver.call(
      'FuncSetAttribute',
      [kernel.handle, maxDynamicSharedMemory, bytes],
      `for ${bytes} bytes of shared memory of kernel ${kernel.name}`,
    );
    kernel.sharedBytes = bytes;
  }

  #module(program: ProgramName, defines: readonly string[], moduleKey: string): Handle {
    const known = this.#modules.get(moduleKey);
    if (known !== undefined) return known;
    const source = sourceOf(program);
    const flags = [
      `--gpu-architecture=${this.#architecture}`,
      '--fmad=false',
      '-std=c++17',
      // Lambdas with `auto` parameters would be host code else.
      '--device-as-default-execution-space',
      ...this.#defines,
      ...defines,
    ];
    const compiler = (this.#compiler ??= new Compiler());
    const cubinOf = () => compiler.compile(source, program, flags);
    const key = cubinKey([source, flags.join(' '), compiler.version]);
    const cubin = cachedCubin(readCudaSettings().cubinFolder, key, cubinOf);
    const module = this.#driver.make('ModuleLoadData', [cubin], `for kernels ${moduleKey}`);
    this.#modules.set(moduleKey, module);
    return module;
  }
}

/** The struct that each kernel of a program takes, by the kernel's name; parsed once. */
const argsOfPrograms = new Map<ProgramName, ReadonlyMap<string, StructLayout>>();

export function argsOf(program: ProgramName, name: string): StructLayout {
  const known = argsOfPrograms.get(program) ?? parseKernelArgs(sourceOf(program));
  argsOfPrograms.set(program, known);
  const args = known.get(name);
  assert(args !== undefined, `the sources of ${program} have no kernel ${name}`);
  return args;
}

function sourceOf(program: ProgramName): string {
  return ['prelude.cuh', ...programs[program]].map((file) => readSource(file)).join('\n');
}

export function readSource(file: string): string {
  return readFileSync(new URL(`../kernels/${file}`, import.meta.url), 'utf8');
}
