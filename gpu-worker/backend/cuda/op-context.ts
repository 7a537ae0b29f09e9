/** What the ops of the CUDA backend work with. */
import type { Numerics } from '../backend.ts';
import type { CublasLt } from './runtime/cublaslt.ts';
import type { Device } from './runtime/device.ts';
import type { DtypeCode } from './handles.ts';
import type { Step } from './step.ts';

export interface OpContext {
  readonly device: Device;
  readonly numerics: Numerics;
  readonly step: Step;
  /** How activations are stored, and bytes of one. */
  readonly activation: DtypeCode;
  readonly activationBytes: 2 | 4;
  /** What kernels that read or write activations are compiled with. */
  readonly defines: { readonly kBf16: 0 | 1 };
  /** 1 if scales are powers of two: the kernels' `power_of_two`. */
  readonly powerOfTwo: 0 | 1;
  /** cuBLASLt for products of many rows; null: our own kernels compute them all. */
  readonly library: CublasLt | null;
  /** Whether the tensor core kernels are used where they fit; off to test the plain ones. */
  readonly useTensorCores: boolean;
}
