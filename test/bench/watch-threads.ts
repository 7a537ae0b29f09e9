/**
 * Loaded with `--import` before a program of ours, and so in each of its threads: measures for how
 * long the event loops of its main thread and of its engine's stand still. On SIGUSR2 it prints the
 * longest of each since the last time, by the clock and by the processor time of the thread alone:
 * other programs on the machine lengthen the first, but hardly the second.
 */
import {
  getEnvironmentData,
  isMainThread,
  setEnvironmentData,
  threadId,
} from 'node:worker_threads';

const tickMs = 1;
const sharedKey = 'longest-stalls-us';
const roles = ['main', 'engine'] as const;
const slots = roles.flatMap((role) => [`${role}WallUs`, `${role}CpuUs`]);

const role = isMainThread ? 0 : process.argv[1]?.endsWith('gpu-worker/main.ts') ? 1 : null;
const shared = sharedStalls();
if (role !== null) watch(2 * role);
if (isMainThread) process.on('SIGUSR2', print);

/** All threads of the process write into the same memory. */
function sharedStalls(): Int32Array {
  if (isMainThread) setEnvironmentData(sharedKey, new SharedArrayBuffer(slots.length * 4));
  const buffer = getEnvironmentData(sharedKey);
  if (!(buffer instanceof SharedArrayBuffer)) throw new Error(`thread ${threadId} shares nothing`);
  return new Int32Array(buffer);
}

function watch(firstSlot: number): void {
  let wallUs = performance.now() * 1_000;
  let cpuUs = threadCpuUs();
  setInterval(() => {
    const [wall, cpu] = [performance.now() * 1_000, threadCpuUs()];
    note(firstSlot, wall - wallUs - tickMs * 1_000);
    note(firstSlot + 1, cpu - cpuUs);
    [wallUs, cpuUs] = [wall, cpu];
  }, tickMs).unref();
}

/** Each slot has one writer, and one who sets it back. */
function note(slot: number, us: number): void {
  const rounded = Math.max(0, Math.round(us));
  if (rounded > Atomics.load(shared, slot)) Atomics.store(shared, slot, rounded);
}

function threadCpuUs(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

function print(): void {
  const longest = slots.map((slot, index) => [slot, Atomics.exchange(shared, index, 0)]);
  console.log(`longest stalls ${JSON.stringify(Object.fromEntries(longest))}`);
}
