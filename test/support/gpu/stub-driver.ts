/**
 * NVIDIA's driver and compiler as they answer where nothing is computed: memory has addresses,
 * kernels are names, copies go nowhere. The whole CUDA backend runs over them, `Device` included,
 * on a machine without a GPU.
 */
import koffi from 'koffi';

type Out = [unknown];
type Answer = (...args: readonly never[]) => void;

export interface StubDriver {
  /** Bytes that were asked of the driver for the device, in order. */
  readonly allocations: number[];
  /** Bytes that were copied to the device so far. */
  copiedBytes: number;
}

/** Puts stubs in the place of the libraries that are loaded from here on. */
export function installStubDriver({ freeBytes }: { freeBytes: number }): StubDriver {
  const stub: StubDriver = { allocations: [], copiedBytes: 0 };
  let nextAddress = 2 ** 33;
  let nextHandle = 1;
  const handle = (out: Out): void => void (out[0] = nextHandle++);
  const answers: Readonly<Record<string, Answer>> = {
    cuDeviceGetCount: (out: Out) => void (out[0] = 1),
    cuDeviceGet: (out: Out) => void (out[0] = 0),
    cuDeviceGetName: (name: Uint8Array) => void name.set(Buffer.from('NVIDIA stub\0')),
    cuDeviceGetAttribute(out: Out, attribute: number) {
      out[0] = new Map([
        [16, 132],
        [75, 9],
        [76, 0],
      ]).get(attribute);
    },
    cuMemGetInfo_v2(free: Out, total: Out) {
      free[0] = freeBytes;
      total[0] = freeBytes;
    },
    cuMemAlloc_v2(out: Out, bytes: number) {
      stub.allocations.push(bytes);
      out[0] = nextAddress;
      nextAddress += bytes;
    },
    cuMemAllocHost_v2(out: Out, bytes: number) {
      out[0] = bytes;
    },
    cuMemcpyHtoDAsync_v2(_to: number, _from: unknown, bytes: number) {
      stub.copiedBytes += bytes;
    },
    cuMemcpyDtoHAsync_v2: (into: Uint8Array, _from: number, bytes: number) =>
      void into.fill(0, 0, bytes),
    cuDevicePrimaryCtxRetain: handle,
    cuStreamCreate: handle,
    cuModuleLoadData: handle,
    cuModuleGetFunction: handle,
    nvrtcVersion(major: Out, minor: Out) {
      major[0] = 13;
      minor[0] = 0;
    },
    nvrtcGetCUBINSize: (_program: number, out: Out) => void (out[0] = 1),
  };
  const func = (declaration: string) => {
    const name = /^\w+ (\w+)\(/.exec(declaration)?.[1] ?? '';
    return (...args: readonly never[]): number => {
      answers[name]?.(...args);
      return 0;
    };
  };
  Object.assign(koffi, { load: () => ({ func }), view: (_: unknown, n: number) => memory(n) });
  return stub;
}

function memory(bytes: number): ArrayBuffer {
  return new ArrayBuffer(bytes);
}
