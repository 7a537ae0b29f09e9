/** The parts of the CUDA backend that its ops share. */
import type { KernelChoices } from '../kernel-choices.ts';
import type { Numerics } from '../numerics.ts';
import type { CublasLt } from './runtime/cublaslt.ts';
import type { DtypeCode } from './handles.ts';
import type { OpDevice } from './op-device.ts';
import type { CudaStep } from './step.ts';

export interface OpContext<D extends OpDevice = OpDevice> {
  readonly device: D;
  readonly numerics: Numerics;
  readonly step: CudaStep;
  /** The dtype in which activations are stored, and bytes of one. */
  readonly activation: DtypeCode;
  readonly activationBytes: 2 | 4;
  /** Definitions for kernels that read or write activations. */
  readonly defines: { readonly kBf16: 0 | 1 };
  /** 1 if scales are powers of two: the kernels' `power_of_two`. */
  readonly powerOfTwo: 0 | 1;
  /** cuBLASLt for GEMMs of many rows; null: our own kernels compute them all. */
  readonly library: CublasLt | null;
  /** True if the tensor core kernels are used where they fit; off to test the plain ones. */
  readonly useTensorCores: boolean;
  /** Ops that have kernels to choose from note the one that they take. */
  readonly kernels: KernelChoices;
}
