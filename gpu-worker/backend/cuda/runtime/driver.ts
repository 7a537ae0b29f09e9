/** The CUDA driver API, as far as the backend uses it, with every return code checked. */
import { CudaMissing, loadLibrary } from './libraries.ts';

/** A context, stream, event, module, function or graph: an address that only the driver reads. */
export type Handle = number | bigint;

/**
 * Faults of a kernel, which the call that next meets the device reports: CUDA_ERROR_ILLEGAL_ADDRESS
 * to LAUNCH_FAILED.
 */
const kernelFaults: readonly number[] = [700, 702, 710, 714, 715, 716, 717, 718, 719];
const namingHint = '; with SIFT_CUDA_SYNC=1 the error names the kernel';

/** A failed call: which one, the driver's code for it, and what was being done. */
export class CudaError extends Error {
  override readonly name = 'CudaError';
  readonly code: number;

  constructor(call: string, code: number, reason: string, doing: string) {
    const what = doing === '' ? '' : ` ${doing}`;
    // A kernel that runs behind the host's back has done so before this call.
    const isNamed = doing.startsWith('for kernel ') || !kernelFaults.includes(code);
    super(`${call} failed with ${code} (${reason})${what}${isNamed ? '' : namingHint}`);
    this.code = code;
  }
}

/** C declarations by name without `cu`; handles and device addresses travel as 64-bit numbers. */
const signatures = {
  Init: 'uint',
  DriverGetVersion: '_Out_ int*',
  DeviceGetCount: '_Out_ int*',
  DeviceGet: '_Out_ int*, int',
  DeviceGetName: 'uint8_t*, int, int',
  DeviceGetAttribute: '_Out_ int*, int, int',
  DevicePrimaryCtxRetain: '_Out_ uint64_t*, int',
  DevicePrimaryCtxRelease_v2: 'int',
  CtxSetCurrent: 'uint64_t',
  CtxSynchronize: '',
  MemGetInfo_v2: '_Out_ uint64_t*, _Out_ uint64_t*',
  MemAlloc_v2: '_Out_ uint64_t*, uint64_t',
  MemFree_v2: 'uint64_t',
  MemAllocHost_v2: '_Out_ void**, uint64_t',
  MemFreeHost: 'void*',
  MemcpyHtoDAsync_v2: 'uint64_t, void*, uint64_t, uint64_t',
  MemcpyDtoHAsync_v2: 'void*, uint64_t, uint64_t, uint64_t',
  MemcpyDtoDAsync_v2: 'uint64_t, uint64_t, uint64_t, uint64_t',
  MemsetD8Async: 'uint64_t, uint8_t, uint64_t, uint64_t',
  StreamCreate: '_Out_ uint64_t*, uint',
  StreamSynchronize: 'uint64_t',
  StreamDestroy_v2: 'uint64_t',
  StreamBeginCapture_v2: 'uint64_t, int',
  StreamEndCapture: 'uint64_t, _Out_ uint64_t*',
  GraphInstantiateWithFlags: '_Out_ uint64_t*, uint64_t, uint64_t',
  GraphLaunch: 'uint64_t, uint64_t',
  GraphDestroy: 'uint64_t',
  GraphExecDestroy: 'uint64_t',
  EventCreate: '_Out_ uint64_t*, uint',
  EventRecord: 'uint64_t, uint64_t',
  EventSynchronize: 'uint64_t',
  EventElapsedTime: '_Out_ float*, uint64_t, uint64_t',
  EventDestroy_v2: 'uint64_t',
  ModuleLoadData: '_Out_ uint64_t*, uint8_t*',
  ModuleGetFunction: '_Out_ uint64_t*, uint64_t, str',
  ModuleUnload: 'uint64_t',
  FuncSetAttribute: 'uint64_t, int, int',
  TensorMapEncodeTiled:
    'void*, int, uint, uint64_t, void*, void*, void*, void*, int, int, int, int',
  LaunchKernel: 'uint64_t, uint, uint, uint, uint, uint, uint, uint, uint64_t, void*, uint64_t',
} as const;

export type DriverCall = keyof typeof signatures;

export class Driver {
  readonly #calls = new Map<DriverCall, (...args: unknown[]) => number>();
  readonly #errorName: (code: number, out: [string | null]) => number;

  /** @throws CudaMissing without a driver. */
  constructor() {
    const library = loadLibrary('cuda');
    for (const [name, parameters] of Object.entries(signatures)) {
      // The keys of an object literal are its own names.
      const call = name as DriverCall;
      this.#calls.set(call, library.func(`int cu${name}(${parameters})`));
    }
    this.#errorName = library.func('int cuGetErrorName(int, _Out_ const char**)');
  }

  /** Calls cu<name>; `doing` tells an error what for. */
  call(name: DriverCall, args: readonly unknown[], doing = ''): void {
    const code = this.raw(name, args);
    if (code !== 0) throw new CudaError(`cu${name}`, code, this.#reason(code), doing);
  }

  /** The driver's code, unchecked: for closing down. */
  raw(name: DriverCall, args: readonly unknown[]): number {
    const call = this.#calls.get(name);
    if (call === undefined) throw new CudaMissing(`the driver has no cu${name}`);
    return call(...args);
  }

  /** A call whose first parameter takes its result. */
  make(name: DriverCall, args: readonly unknown[], doing = ''): Handle {
    const out: [Handle] = [0];
    this.call(name, [out, ...args], doing);
    return out[0];
  }

  #reason(code: number): string {
    const out: [string | null] = [null];
    this.#errorName(code, out);
    return out[0] ?? 'unknown error';
  }
}
