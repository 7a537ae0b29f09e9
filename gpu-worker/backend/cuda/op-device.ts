import type { Device } from './runtime/device.ts';
import type { Driver } from './runtime/driver.ts';
import type { LaunchQueue } from './runtime/launch-queue.ts';

/**
 * The parts of a device that its ops use: a GPU has them, and so has a device that only counts
 * memory (planned-device.ts).
 */
export interface OpDevice extends Pick<
  Device,
  | 'smCount'
  | 'hostMemory'
  | 'limitBytes'
  | 'traffic'
  | 'kernel'
  | 'launch'
  | 'allocate'
  | 'memory'
  | 'freezeMemory'
  | 'upload'
  | 'send'
  | 'download'
  | 'downloadWith'
  | 'fill'
  | 'synchronize'
  | 'close'
> {
  readonly driver: Pick<Driver, 'call'>;
  readonly queue: Pick<
    LaunchQueue,
    'empty' | 'usesGraphs' | 'flush' | 'capture' | 'launch' | 'destroy' | 'pushCall'
  >;
}
