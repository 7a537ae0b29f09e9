/**
 * The CUDA backend for GPUs of compute capability 9.0: the same ops as the CPU backend, with the
 * same roundings, from kernels that NVRTC compiles at their first use (kernels/). Ops queue
 * launches; reading a result runs them. A row's result never depends on what else is in the call.
 */
import { strict as assert } from 'node:assert';
import type { Absorption } from '../attention-plan.ts';
import type { Backend } from '../backend.ts';
import { KernelChoices } from '../kernel-choices.ts';
import { Mla } from '../mla.ts';
import type { Numerics } from '../numerics.ts';
import { alone } from '../ranks.ts';
import { readCudaSettings } from './cuda-settings.ts';
import { dtypeCode } from './handles.ts';
import type { OpContext } from './op-context.ts';
import type { OpDevice } from './op-device.ts';
import { CudaAttention } from './ops/attention.ts';
import { CudaCaches } from './ops/caches.ts';
import { CudaGemm } from './ops/gemm.ts';
import { GemmInputs } from './ops/gemm-inputs.ts';
import { CudaIndexer } from './ops/indexer.ts';
import { CudaMemory } from './ops/memory.ts';
import { CudaMoe } from './ops/moe.ts';
import { CudaRowOps } from './ops/row-ops.ts';
import { CudaSampling } from './ops/sampling.ts';
import { CudaWeights } from './ops/weights.ts';
import { createPlannedDevice } from './planned-device.ts';
import { CublasLt, takeWorkspace } from './runtime/cublaslt.ts';
import { Device } from './runtime/device.ts';
import { usableBytes } from './runtime/device-memory.ts';
import { CudaMissing } from './runtime/libraries.ts';
import { CudaStep } from './step.ts';
import { StepGraphs } from './step-graphs.ts';

export interface CudaBackendOptions {
  readonly numerics: Numerics;
  /** Most rows that a step has. */
  readonly rowsMax: number;
  /** Bytes of weights, activations and caches together; what the GPU has free unless given. */
  readonly memoryBytesMax?: number;
  /** True if steps are replayed as CUDA graphs; yes unless told otherwise. */
  readonly graphs?: boolean;
  /** True if kernels are made for racecheck (see DeviceOptions); no unless told. */
  readonly traced?: boolean;
  /** True if tensor core kernels are used where they fit; yes unless told otherwise. */
  readonly useTensorCores?: boolean;
  /**
   * True if cuBLASLt computes GEMMs of many rows, if it is installed; SIFT_CUBLASLT=1 if not told.
   * No is the default: its sums have another order than those of few rows, so that a row's bits
   * would depend on what else is in the step.
   */
  readonly cublasLt?: boolean;
  /** Rows whose attention is absorbed; by the shape of the heads unless given. */
  readonly absorb?: Absorption | undefined;
  /** Tokens whose keys and values are expanded at a time, whole 128; by memory unless given. */
  readonly expandedTokens?: number;
}

/** Rejects with CudaMissing, in one line, if there is no driver, NVRTC or fitting GPU. */
export async function openCudaBackend(options: CudaBackendOptions): Promise<CudaBackend> {
  const { numerics, rowsMax, memoryBytesMax, graphs, traced } = options;
  assert(Number.isInteger(rowsMax) && rowsMax > 0, 'rowsMax must be a positive integer');
  const device = new Device({
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    ...(graphs === undefined ? {} : { graphs }),
    ...(traced === undefined ? {} : { traced }),
  });
  // A missing compiler is told now, not at the first op.
  device.kernel('rows', 'embed', definesOf(numerics));
  const wantsLibrary = options.cublasLt ?? readCudaSettings().cublasLt;
  return makeBackend(device, options, () => (wantsLibrary ? openLibrary(device) : null));
}

export interface PlannedBackendOptions extends CudaBackendOptions {
  /** Bytes that the GPU has free; no bound unless given. */
  readonly freeBytes?: number;
}

/**
 * A backend without a GPU: it takes memory as `openCudaBackend`'s does, and computes nothing. It
 * never refuses an allocation; `memory.use()` tells the limit beside what was taken.
 */
export function planCudaBackend(options: PlannedBackendOptions): CudaBackend<OpDevice> {
  const usable = usableBytes(options.freeBytes ?? Infinity);
  const device = createPlannedDevice(Math.min(options.memoryBytesMax ?? usable, usable));
  const wantsLibrary = options.cublasLt ?? readCudaSettings().cublasLt;
  return makeBackend(device, { ...options, isPlan: true }, () => {
    if (wantsLibrary) takeWorkspace(device);
    return null;
  });
}

function makeBackend<D extends OpDevice>(
  device: D,
  options: CudaBackendOptions & Pick<OwnOptions, 'isPlan'>,
  openLibraryFor: () => CublasLt | null,
): CudaBackend<D> {
  const { numerics, rowsMax, expandedTokens = null, absorb } = options;
  const bf16 = numerics.activations === 'bf16';
  const context: OpContext<D> = {
    device,
    numerics,
    step: new CudaStep(device, rowsMax),
    activation: bf16 ? dtypeCode.BF16 : dtypeCode.F32,
    activationBytes: bf16 ? 2 : 4,
    defines: definesOf(numerics),
    powerOfTwo: numerics.scaleFormat === 'ue8m0' ? 1 : 0,
    library: openLibraryFor(),
    useTensorCores: options.useTensorCores ?? true,
    kernels: new KernelChoices(),
  };
  return new CudaBackend(context, { expandedTokens, absorb, isPlan: options.isPlan ?? false });
}

function definesOf({ activations }: Numerics): OpContext['defines'] {
  return { kBf16: activations === 'bf16' ? 1 : 0 };
}

/** Our own kernels stand in for a library that is not there. */
function openLibrary(device: Device): CublasLt | null {
  try {
    return new CublasLt(device);
  } catch (cause) {
    if (!(cause instanceof CudaMissing)) throw cause;
    process.emitWarning(`${cause.message}; GEMMs use the kernels of this project instead`);
    return null;
  }
}

interface OwnOptions {
  readonly expandedTokens: number | null;
  readonly absorb?: Absorption | undefined;
  readonly isPlan?: boolean;
}

export class CudaBackend<D extends OpDevice = Device> implements Backend {
  readonly name = 'cuda' as const;
  readonly numerics: Numerics;
  readonly ranks = alone;
  readonly kernels: KernelChoices;
  readonly context: OpContext<D>;
  readonly isPlan: boolean;
  readonly memory: CudaMemory;
  readonly weights: CudaWeights;
  readonly batch: StepGraphs;
  readonly rows: CudaRowOps;
  readonly gemm: CudaGemm;
  readonly caches: CudaCaches;
  readonly indexer: CudaIndexer;
  readonly attention: CudaAttention;
  readonly mla: Mla;
  readonly moe: CudaMoe;
  readonly sampling: CudaSampling;

  readonly #options: OwnOptions;

  constructor(context: OpContext<D>, options: OwnOptions) {
    this.context = context;
    this.kernels = context.kernels;
    this.isPlan = options.isPlan ?? false;
    this.#options = options;
    this.numerics = context.numerics;
    this.batch = new StepGraphs(context.device, context.step);
    this.rows = new CudaRowOps(context);
    const inputs = new GemmInputs(context, this.rows);
    this.gemm = new CudaGemm(context, this.rows, inputs);
    this.indexer = new CudaIndexer(context);
    this.memory = new CudaMemory(context, inputs, this.indexer);
    this.caches = new CudaCaches(context, this.rows);
    this.attention = new CudaAttention(context, this.gemm, options.expandedTokens);
    this.weights = new CudaWeights(context, inputs, this.attention);
    this.mla = new Mla({ ...this, step: context.step }, options.absorb);
    this.moe = new CudaMoe(context, this.gemm);
    this.sampling = new CudaSampling(context, this.indexer);
  }

  planned(): CudaBackend<OpDevice> {
    const { device, numerics, step, library, useTensorCores } = this.context;
    const { expandedTokens, absorb } = this.#options;
    return planCudaBackend({
      numerics,
      rowsMax: step.rowsMax,
      memoryBytesMax: device.limitBytes,
      cublasLt: library !== null,
      useTensorCores,
      absorb,
      ...(expandedTokens === null ? {} : { expandedTokens }),
    });
  }

  close(): Promise<void> {
    this.context.library?.close();
    this.context.device.close();
    return Promise.resolve();
  }
}
