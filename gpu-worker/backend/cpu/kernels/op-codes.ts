// Numbers of the ops and fixed addresses in the shared memory: read by the kernels (AssemblyScript)
// and by the host (TypeScript), so only what means the same in both stands here.

export const opGemm = 0;
export const opQuantize = 1;
export const opEmbed = 2;
export const opRmsNorm = 3;
export const opLayerNorm = 4;
export const opAdd = 5;
export const opRotate = 6;
export const opHadamard = 7;
export const opSiluMultiply = 8;
export const opCopyRows = 9;
export const opWriteLatent = 10;
export const opWriteIndexKeys = 11;
export const opIndexScores = 12;
export const opTopK = 13;
export const opAttend = 14;
export const opExpandEntries = 15;
export const opPackKeys = 16;
export const opAttendPages = 17;
export const opFinishPages = 18;
export const opRoute = 19;
export const opCombine = 20;
export const opCodecs = 21;
export const opPackIndexKeys = 22;
export const opIndexFilter = 23;

/** i64: generation << 32 | tasks that nobody has taken yet. Each counter has its own cache line. */
export const wordAt = 1024;
/** i32: finished tasks of the job. */
export const doneAt = 1088;
/** i32: helpers that sleep on the word's low half. */
export const sleepersAt = 1152;
/** i32: 1 while the caller sleeps on `done`. */
export const callerSleepsAt = 1216;
/** i32: 1 once a helper has died. */
export const failedAt = 1280;
/** i32: 1 tells the helpers to end. */
export const stopAt = 1344;
/** i32: 1 if a kernel met a score that is not a number. */
export const notANumberAt = 1408;
/** The job: op, tasks, address of thread 0's scratch, scratch bytes per thread. */
export const jobAt = 1472;
/** The job's arguments, 4 bytes each. */
export const argumentsAt = 1536;
/** The first byte that the host hands out. */
export const heapAt = 65536;

export const dtypeF32 = 0;
export const dtypeBf16 = 1;
export const dtypeE4m3 = 2;

/** Most rows in one tile of a GEMM job, and of the table's entries that describe it. */
export const tileRowsMax = 64;
export const tileBytes = 20;
export const matrixBytes = 24;
export const cacheBytes = 36;
/** Keys whose scores are in scratch at a time; online softmax joins the blocks. */
export const keyBlock = 256;
/** Rows of one sequence that share a pass over the index keys. */
export const scoreRowsMax = 16;
export const scoreTaskBytes = 16;
/** Rows of one sequence that share a pass over the expanded keys. */
export const pageRowsMax = 4;
export const threadScratchBytes = 2097152;
