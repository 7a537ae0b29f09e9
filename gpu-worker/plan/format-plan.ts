/** A plan as people read it: two tables with a line for each layout, and what it advises. */
import type { CheckpointShapes } from './checkpoint-shapes.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type { AtContext, LayoutPlan, MachinePlan } from './plan.ts';
import type { StepFloor } from './step-floor.ts';

export interface PlanHeading {
  readonly gpus: number;
  readonly gpuBytes: number;
  readonly numerics: string;
  readonly stepTokens: number;
}

export function formatPlan(
  shapes: CheckpointShapes,
  plan: MachinePlan,
  heading: PlanHeading,
): string {
  const parts = [
    headLines(shapes, plan, heading),
    memoryTable(plan.layouts),
    stepTable(plan.layouts),
    closingLines(shapes, plan, heading),
  ];
  return parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n');
}

const basisText = {
  headers: 'its files',
  index: 'its index and config.json',
  config: 'config.json alone',
};

function headLines(
  { config, bytes, basis }: CheckpointShapes,
  { draftLayers, layouts }: MachinePlan,
  { gpus, gpuBytes, numerics, stepTokens }: PlanHeading,
): string[] {
  const layers = `${config.layers} layers${draftLayers > 0 ? ` and ${draftLayers} of MTP` : ''}`;
  const cache = layouts.find(({ cacheBytesPerToken }) => cacheBytesPerToken !== null);
  const lines = [
    `${config.modelType}: ${layers}, ${gb(bytes)} by ${basisText[basis]}`,
    `${gpus} GPU${gpus === 1 ? '' : 's'} of ${gb(gpuBytes)}, ${numerics} numerics, ` +
      `${count(stepTokens)} tokens a step`,
  ];
  if (cache?.cacheBytesPerToken) {
    const { latents, indexKeys } = cache.cacheBytesPerToken;
    lines.push(
      `${count(latents + indexKeys)} bytes of cache a token: ${count(latents)} of latents, ` +
        `${count(indexKeys)} of index keys`,
    );
  }
  return lines;
}

function memoryTable(layouts: readonly LayoutPlan[]): string[] {
  const steps = layouts.find((layout) => layout.steps.length > 0)?.steps ?? [];
  const head = [
    'a GPU',
    'weights',
    'arena',
    'cache',
    'tokens',
    'of all GPUs',
    ...steps.map(streamsAt),
  ];
  const rows = layouts.map((layout) => {
    const { memory, tokens } = layout;
    if (memory === null || tokens === null) return [nameOf(layout), layout.fault ?? ''];
    const left = memory.limit - memory.weights - memory.arena;
    return [
      nameOf(layout),
      gb(memory.weights),
      gb(memory.arena),
      left < 0 ? `lacks ${gb(-left)}` : gb(left),
      count(tokens.perGpu),
      count(tokens.perMachine),
      ...layout.steps.map(({ streams }) => count(streams)),
    ];
  });
  return aligned([head, ...rows]);
}

function stepTable(layouts: readonly LayoutPlan[]): string[] {
  const fitting = layouts.filter(({ fault }) => fault === null);
  const steps = fitting[0]?.steps;
  if (steps === undefined) return [];
  const head = [
    'least ms',
    ...steps.map(({ context }) => `1 at ${short(context)}`),
    ...steps.map(({ context }) => `all at ${short(context)}`),
  ];
  const rows = fitting.map((layout) => [
    nameOf(layout),
    ...layout.steps.map(({ oneStream }) => floorText(oneStream)),
    ...layout.steps.map(({ allStreams }) => (allStreams === null ? '-' : floorText(allStreams))),
  ]);
  return [
    ...aligned([head, ...rows]),
    'By bytes / by operations; messages between GPUs, launches and drafts are not counted.',
  ];
}

function closingLines(
  { config }: CheckpointShapes,
  { advice, isServed }: MachinePlan,
  { gpus }: PlanHeading,
): string[] {
  const lines = [];
  if (advice === null) {
    lines.push('No layout fits.');
  } else {
    const { latency, throughput, context } = advice;
    const at = `at ${short(context)}`;
    lines.push(
      `For latency ${nameOf(latency.layout)}: one stream ${at} takes at least ` +
        `${milliseconds(latency.floor.ms)} ms a token.`,
      `For throughput ${nameOf(throughput.layout)}: ${count(throughput.floor.streams)} streams ` +
        `${at} get at most ${count(Math.round(throughput.floor.tokensPerSecond))} tokens a second.`,
    );
  }
  if (!isServed) {
    lines.push(`Planned only: a worker serves one GPU, and no layout of ${gpus} can be started.`);
  } else if (config.mtpLayers > 0) {
    lines.push('The MTP layer is not counted, as workers do not load it.');
  }
  return lines;
}

function nameOf({ tensorParallel, dataParallel }: Layout): string {
  return `T${tensorParallel} x D${dataParallel}`;
}

function streamsAt({ context }: AtContext): string {
  return `${short(context)} streams`;
}

function short(tokens: number): string {
  return tokens % 1024 === 0 ? `${tokens / 1024}K` : String(tokens);
}

function floorText({ bytesMs, operationsMs }: StepFloor): string {
  return `${milliseconds(bytesMs)} / ${milliseconds(operationsMs)}`;
}

function milliseconds(ms: number): string {
  if (ms < 0.1) return ms.toPrecision(2);
  return ms.toFixed(ms < 10 ? 2 : 1);
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const whole = rows.filter((row) => row.length > 2);
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(...whole.map((row) => row[i]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}

function gb(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

function count(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 1 });
}
