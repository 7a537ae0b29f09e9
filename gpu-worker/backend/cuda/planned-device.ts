/**
 * A device that is not there: it gives out addresses and counts them as a GPU's memory is counted
 * (device-memory.ts), and runs nothing. So the memory of a model is known from its shapes alone, by
 * the very calls that will take it.
 */
import type { OpDevice } from './op-device.ts';
import { DeviceMemory } from './runtime/device-memory.ts';
import type { Kernel } from './runtime/kernels.ts';

/** The SMs of an H200. */
const smCount = 132;
/** Addresses begin here, so that none of them is 0. */
const firstAddress = 2 ** 33;

/** @param limitBytes what `memory()` tells as the limit; it does not bound allocations. */
export function createPlannedDevice(limitBytes: number): OpDevice {
  const memory = new DeviceMemory({
    limitBytes,
    take: (_bytes, _what, takenBytes) => firstAddress + takenBytes,
  });
  const nothing = (): void => {};
  return {
    smCount,
    limitBytes,
    traffic: 0,
    hostMemory: { allocate: (bytes) => new Uint8Array(bytes), free: nothing },
    driver: { call: nothing },
    queue: {
      empty: true,
      usesGraphs: false,
      flush: nothing,
      capture: () => null,
      launch: nothing,
      destroy: nothing,
      pushCall: nothing,
    },
    kernel: (program, name): Kernel => ({
      id: 0,
      program,
      name,
      handle: 0,
      args: { name, fields: [], bytes: 0, alignment: 1 },
      sharedBytes: 0,
    }),
    launch: nothing,
    allocate: (bytes, purpose, what) => memory.allocate(bytes, purpose, what),
    memory: () => memory.use(),
    freezeMemory: () => memory.freeze(),
    upload: nothing,
    send: nothing,
    fill: nothing,
    synchronize: nothing,
    download: (_from, bytes) => new Uint8Array(bytes),
    downloadWith: (_from, bytes) => [new Uint8Array(bytes), 0],
    close: nothing,
  };
}
