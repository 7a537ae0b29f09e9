/**
 * The static plan: what the caches get of the memory that weights and activations leave, and the
 * limits that keep the engine within it. Nothing is allocated after it was made; a machine too
 * small for the model is told so here, before any request.
 */
import { blockTokens } from '../backend/batch.ts';
import type { MemoryUse } from '../backend/memory.ts';
import { blocksFor } from './block-manager.ts';
import type { MemoryPlan } from './request.ts';

const reservedNote = 'CUDA graphs, the driver, what ops take at their first call';
/** A cache below this many tokens (or one full context, if that is less) is not worth starting. */
const cacheTokensMin = 1024;

export interface PlanOptions {
  /** The memory in use after weights and activations are allocated, and before the caches are. */
  readonly memory: MemoryUse;
  /** Bytes of one block in the caches of all layers. */
  readonly blockBytes: number;
  readonly contextLength: number;
  readonly stepTokensMax: number;
  /** Tokens of a step that also decodes; more than `stepTokensMax` counts as that. */
  readonly mixedTokensMax: number;
  readonly sequencesMax: number;
  readonly waitingMax: number;
  /** Caps the cache below what memory allows; null takes all of that. */
  readonly cacheTokensMax: number | null;
}

/** Throws an Error that says what is missing when the cache would be too small to serve. */
export function planMemory(options: PlanOptions): MemoryPlan {
  const { memory, blockBytes, contextLength, sequencesMax, stepTokensMax } = options;
  const mixedTokensMax = Math.min(stepTokensMax, options.mixedTokensMax);
  if (mixedTokensMax < sequencesMax) {
    throw new Error(
      `a step of ${mixedTokensMax} tokens cannot hold one for each of ${sequencesMax} sequences`,
    );
  }
  const blocksAffordable = affordableBlocks(memory, blockBytes);
  const blocksAllowed = Math.floor((options.cacheTokensMax ?? Infinity) / blockTokens);
  const blocks = Math.min(blocksAffordable, blocksAllowed);
  const blocksMin = leastBlocks(contextLength);
  if (blocks < blocksMin) {
    const limits =
      blocksAllowed < blocksMin
        ? `the cache is limited to ${options.cacheTokensMax} tokens`
        : `of ${gib(memory.limitBytes)} the weights take ${gib(memory.weightBytes)} and the ` +
          `activations ${gib(memory.activationBytes)}, which leaves ${blocksAffordable} blocks`;
    const rows = memoryRows({ ...memory, cacheBytes: blocksMin * blockBytes }, [
      `${count(stepTokensMax)} tokens a step`,
      `the least, ${count(blocksMin * blockTokens)} tokens`,
    ]);
    throw new Error(
      `the model does not fit: its cache needs at least ${blocksMin} blocks of ${blockTokens} ` +
        `tokens (${gib(blocksMin * blockBytes)}), but ${limits}\n${alignedRows(rows)}`,
    );
  }
  return {
    weightBytes: memory.weightBytes,
    activationBytes: memory.activationBytes,
    cacheBytes: blocks * blockBytes,
    limitBytes: memory.limitBytes,
    reservedBytes: memory.reservedBytes,
    blocks,
    blockTokens,
    bytesPerToken: blockBytes / blockTokens,
    stepTokensMax,
    mixedTokensMax,
    sequencesMax,
    waitingMax: options.waitingMax,
  };
}

/** Blocks of the caches that fit beside weights and activations. */
export function affordableBlocks(memory: MemoryUse, blockBytes: number): number {
  const left = memory.limitBytes - memory.weightBytes - memory.activationBytes;
  return Math.max(0, Math.floor(left / blockBytes));
}

/** Blocks below which a cache is not worth starting. */
export function leastBlocks(contextLength: number): number {
  return blocksFor(Math.min(cacheTokensMin, contextLength));
}

/** The plan as a few aligned lines. */
export function formatMemoryPlan(plan: MemoryPlan): string {
  const cacheTokens = plan.blocks * plan.blockTokens;
  return alignedRows([
    ...memoryRows(plan, [
      `${count(plan.stepTokensMax)} tokens a step`,
      `${count(cacheTokens)} tokens, ${count(plan.blocks)} blocks, ` +
        `${count(plan.bytesPerToken)} bytes a token`,
    ]),
    ['sequences', count(plan.sequencesMax), `${count(plan.waitingMax)} more may wait`],
  ]);
}

type Row = readonly [name: string, size: string, note: string];

function memoryRows(
  memory: MemoryUse,
  notes: readonly [activations: string, cache: string],
): Row[] {
  const rows: Row[] = [
    ['weights', gib(memory.weightBytes), ''],
    ['activations', gib(memory.activationBytes), notes[0]],
    ['cache', gib(memory.cacheBytes), notes[1]],
    ['limit', gib(memory.limitBytes), ''],
  ];
  if (memory.reservedBytes > 0) rows.push(['reserved', gib(memory.reservedBytes), reservedNote]);
  return rows;
}

function alignedRows(rows: readonly Row[]): string {
  return rows
    .map(([name, size, note]) => `${name.padEnd(12)}${size.padStart(11)}   ${note}`.trimEnd())
    .join('\n');
}

function gib(bytes: number): string {
  return bytes < 2 ** 30
    ? `${(bytes / 2 ** 20).toFixed(1)} MiB`
    : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function count(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 1 });
}
