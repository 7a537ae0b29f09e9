/**
 * A planned device that packs the arguments of every launch as the launch queue does. So the CUDA
 * backend's host side runs without a GPU.
 */
import type { OpDevice } from '../../../gpu-worker/backend/cuda/op-device.ts';
import { createPlannedDevice } from '../../../gpu-worker/backend/cuda/planned-device.ts';
import { packArgs } from '../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import type { KernelArgs } from '../../../gpu-worker/backend/cuda/runtime/kernel-args.ts';
import { argsOf } from '../../../gpu-worker/backend/cuda/runtime/kernels.ts';
import type { Kernel } from '../../../gpu-worker/backend/cuda/runtime/kernels.ts';
import type { LaunchShape } from '../../../gpu-worker/backend/cuda/runtime/launch-queue.ts';

/** A block has no more shared memory. */
const sharedBytesMax = 232_448;

export interface RecordingDevice {
  readonly device: OpDevice;
  /** The names of the kernels that were launched. */
  readonly launched: Set<string>;
}

export function createRecordingDevice(): RecordingDevice {
  const launched = new Set<string>();
  const device: OpDevice = {
    ...createPlannedDevice(2 ** 40),
    launch({ program, name }: Kernel, shape: LaunchShape, args: KernelArgs) {
      const layout = argsOf(program, name);
      const words = new Uint32Array(layout.bytes / 4);
      packArgs(name, layout, args, { words, start: 0 });
      if ((shape.sharedBytes ?? 0) > sharedBytesMax || shape.threads > 1024) {
        throw new Error(`kernel ${name} cannot be launched: ${JSON.stringify(shape)}`);
      }
      launched.add(name);
    },
  };
  return { device, launched };
}
