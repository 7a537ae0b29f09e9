/**
 * A device that computes nothing: it gives addresses, and packs the arguments of every launch as
 * the launch queue does. So the CUDA backend's host side runs without a GPU.
 */
import type { Device } from '../../../gpu-worker/backend/cuda/runtime/device.ts';
import { packArgs } from '../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import type { KernelArgs } from '../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import { argsOf } from '../../../gpu-worker/backend/cuda/runtime/kernels.ts';
import type { ProgramName } from '../../../gpu-worker/backend/cuda/runtime/kernels.ts';
import type { LaunchShape } from '../../../gpu-worker/backend/cuda/runtime/launch-queue.ts';

/** The SMs of an H200. */
const smCount = 132;
/** A block has no more shared memory. */
const sharedBytesMax = 232_448;

interface NamedKernel {
  readonly program: ProgramName;
  readonly name: string;
}

export interface RecordingDevice {
  readonly device: Device;
  /** The names of the kernels that were launched. */
  readonly launched: Set<string>;
}

export function createRecordingDevice(): RecordingDevice {
  const launched = new Set<string>();
  let next = 2 ** 33;
  const device = {
    smCount,
    hostMemory: null,
    queue: { empty: true, usesGraphs: false, flush: () => {} },
    driver: { call: () => {} },
    kernel: (program: ProgramName, name: string): NamedKernel => ({ program, name }),
    launch({ program, name }: NamedKernel, shape: LaunchShape, args: KernelArgs) {
      const layout = argsOf(program, name);
      const words = new Uint32Array(layout.bytes / 4);
      packArgs(name, layout, args, { words, start: 0 });
      if ((shape.sharedBytes ?? 0) > sharedBytesMax || shape.threads > 1024) {
        throw new Error(`kernel ${name} cannot be launched: ${JSON.stringify(shape)}`);
      }
      launched.add(name);
    },
    allocate(bytes: number) {
      const at = next;
      next += Math.ceil(Math.max(bytes, 1) / 256) * 256;
      return at;
    },
    memory: () => ({
      weightBytes: 0,
      activationBytes: 0,
      cacheBytes: 0,
      limitBytes: 2 ** 40,
      reservedBytes: 0,
    }),
    download: (_from: number, bytes: number) => new Uint8Array(bytes),
    downloadWith: (_from: number, bytes: number) => [new Uint8Array(bytes), 0],
    upload: () => {},
    send: () => {},
    fill: () => {},
    synchronize: () => {},
    freezeMemory: () => {},
  };
  // The ops use no other part of a device; one that they come to use fails the tests by its name.
  return { device: device as unknown as Device, launched };
}
