// The entry points of the kernels, and the parallel-for that they run in.
//
// One job at a time. The caller writes op and arguments, then publishes `generation << 32 | tasks`
// in one 64-bit word; a thread takes a task by lowering that word. A job can't end before a taken
// task is done, so whoever has taken one may read the job at leisure, and a helper that slept
// through a whole job can never touch the next one by mistake.

import { attend } from './attend';
import { attendPages, expandEntries, finishPages, packKeys } from './attend-pages';
import { writeIndexKeys, writeLatent } from './caches';
import { codecs } from './codec-probe';
import { gemm } from './gemm';
import { indexFilter, packIndexKeys } from './index-filter';
import { indexScores } from './index-scores';
import { combine, route } from './moe';
import * as op from './op-codes';
import { hadamard, rotate } from './rotations';
import { add, copyRows, embed, layerNorm, quantize, rmsNorm, siluMultiply } from './rows';
import { topK } from './top-k';

/** Looks at the word before sleeping: 51 us, half a nanosecond each. */
const spinsMax = 100000;
/** Between looks at `failed` while the caller sleeps. */
const waitNs: i64 = 100000000;
/** Waits without a finished task before the caller gives up: 60 s. */
const idleWaitsMax = 600;

function runTask(code: u32, task: u32, thread: u32): void {
  const at = op.argumentsAt;
  const scratch = load<usize>(op.jobAt, 8) + thread * load<u32>(op.jobAt, 12);
  switch (code) {
    case op.opGemm:
      gemm(at, task, scratch);
      break;
    case op.opQuantize:
      quantize(at, task);
      break;
    case op.opEmbed:
      embed(at, task);
      break;
    case op.opRmsNorm:
      rmsNorm(at, task, scratch);
      break;
    case op.opLayerNorm:
      layerNorm(at, task);
      break;
    case op.opAdd:
      add(at, task);
      break;
    case op.opRotate:
      rotate(at, task);
      break;
    case op.opHadamard:
      hadamard(at, task);
      break;
    case op.opSiluMultiply:
      siluMultiply(at, task);
      break;
    case op.opCopyRows:
      copyRows(at, task);
      break;
    case op.opWriteLatent:
      writeLatent(at, task);
      break;
    case op.opWriteIndexKeys:
      writeIndexKeys(at, task);
      break;
    case op.opIndexScores:
      indexScores(at, task, scratch);
      break;
    case op.opPackIndexKeys:
      packIndexKeys(at, task, scratch);
      break;
    case op.opIndexFilter:
      indexFilter(at, task, scratch);
      break;
    case op.opTopK:
      topK(at, task, scratch);
      break;
    case op.opAttend:
      attend(at, task, scratch);
      break;
    case op.opExpandEntries:
      expandEntries(at, task);
      break;
    case op.opPackKeys:
      packKeys(at, task);
      break;
    case op.opAttendPages:
      attendPages(at, task, scratch);
      break;
    case op.opFinishPages:
      finishPages(at, task);
      break;
    case op.opRoute:
      route(at, task, scratch);
      break;
    case op.opCombine:
      combine(at, task);
      break;
    case op.opCodecs:
      codecs(at);
      break;
    default:
      unreachable();
  }
}

/** Takes and runs tasks while there are any. */
function work(thread: u32): void {
  while (true) {
    const word = atomic.load<i64>(op.wordAt);
    const left = <u32>word;
    if (left == 0) return;
    if (atomic.cmpxchg<i64>(op.wordAt, word, word - 1) != word) continue;
    const total = load<u32>(op.jobAt, 4);
    runTask(load<u32>(op.jobAt), total - left, thread);
    if (<u32>atomic.add<i32>(op.doneAt, 1) + 1 == total) {
      if (atomic.load<i32>(op.callerSleepsAt) != 0) atomic.notify(op.doneAt, 1);
    }
  }
}

/** A helper's life: returns once the backend closes. */
export function serve(thread: u32): void {
  while (true) {
    work(thread);
    let spins = 0;
    while (<u32>atomic.load<i64>(op.wordAt) == 0) {
      if (atomic.load<i32>(op.stopAt) != 0) return;
      if (++spins < spinsMax) continue;
      atomic.add<i32>(op.sleepersAt, 1);
      atomic.wait<i32>(op.wordAt, 0, -1);
      atomic.sub<i32>(op.sleepersAt, 1);
      spins = 0;
    }
  }
}

/** Runs a job on the caller alone. */
export function runAlone(code: u32, tasks: u32): void {
  for (let task: u32 = 0; task < tasks; task++) runTask(code, task, 0);
}

/**
 * Runs a job on all threads. 0: done; 1: a helper has died; 2: a helper stopped making progress.
 */
export function runShared(code: u32, tasks: u32): i32 {
  store<u32>(op.jobAt, code);
  store<u32>(op.jobAt, tasks, 4);
  atomic.store<i32>(op.doneAt, 0);
  const generation = (atomic.load<i64>(op.wordAt) >> 32) + 1;
  atomic.store<i64>(op.wordAt, (generation << 32) | <i64>tasks);
  if (atomic.load<i32>(op.sleepersAt) != 0) atomic.notify(op.wordAt, -1);
  work(0);

  for (let spins = 0; spins < spinsMax; spins++) {
    if (<u32>atomic.load<i32>(op.doneAt) == tasks) return 0;
  }
  let idleWaits = 0;
  atomic.store<i32>(op.callerSleepsAt, 1);
  while (true) {
    const done = atomic.load<i32>(op.doneAt);
    if (<u32>done == tasks) break;
    if (atomic.load<i32>(op.failedAt) != 0) return 1;
    atomic.wait<i32>(op.doneAt, done, waitNs);
    idleWaits = atomic.load<i32>(op.doneAt) == done ? idleWaits + 1 : 0;
    if (idleWaits == idleWaitsMax) return 2;
  }
  atomic.store<i32>(op.callerSleepsAt, 0);
  return 0;
}
