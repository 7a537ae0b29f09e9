/**
 * `npm run bench:plots`: draws the newest figures of results.jsonl into plots/, what a token costs
 * at a position with sparse and with dense attention, as in the DeepSeek-V3.2 paper.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse, View } from 'vega';
import { compile } from 'vega-lite';
import type { TopLevelSpec } from 'vega-lite';
import { z } from 'zod';

const lineSchema = z.object({
  date: z.string(),
  commit: z.string(),
  benchmark: z.string(),
  shapes: z.record(z.string(), z.unknown()),
  figures: z.record(z.string(), z.union([z.number(), z.string()])),
});
type Line = z.infer<typeof lineSchema>;

interface Point {
  readonly context: number;
  readonly attention: string;
  readonly cost: number;
}

const folder = fileURLToPath(new URL('./plots/', import.meta.url));
const lines = readFileSync(new URL('./results.jsonl', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => lineSchema.parse(JSON.parse(line)));

mkdirSync(folder, { recursive: true });
await draw('slice-prefill', {
  title: 'Prefill of DeepSeek-V3.2, one layer',
  unit: 'microseconds per token and layer',
  lines: lines.filter(({ benchmark }) => benchmark === 'gpu-slice-prefill'),
  cost: ({ figures }) => Number(figures['usPerTokenAndLayer']),
});
const decodes = lines.filter(({ benchmark }) => benchmark === 'gpu-slice-decode');
for (const batch of new Set(decodes.map(({ shapes }) => Number(shapes['batch'])))) {
  await draw(`slice-decode-${batch}`, {
    title: `Decode of DeepSeek-V3.2, one layer, ${batch} ${batch === 1 ? 'stream' : 'streams'}`,
    unit: 'microseconds per token and layer',
    lines: decodes.filter(({ shapes }) => shapes['batch'] === batch),
    cost: ({ figures }) => Number(figures['usPerLayer']) / batch,
  });
}

async function draw(
  name: string,
  plot: { title: string; unit: string; lines: readonly Line[]; cost: (line: Line) => number },
): Promise<void> {
  // Later lines of the same shape replace earlier ones.
  const points = new Map<string, Point>();
  let newest: Line | undefined;
  for (const line of plot.lines) {
    const context = Number(line.shapes['context']);
    const attention = String(line.shapes['attention']);
    points.set(`${attention} ${context}`, { context, attention, cost: plot.cost(line) });
    newest = line;
  }
  if (newest === undefined) return console.log(`${name}: nothing was measured`);
  const subtitle = `${String(newest.shapes['gpu'])}, ${newest.date.slice(0, 10)}, commit ${newest.commit}`;
  const spec = specOf({ ...plot, subtitle, points: [...points.values()] });
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  writeFileSync(`${folder}${name}.svg`, `${await view.toSVG()}\n`);
  await view.finalize();
  console.log(`${folder}${name}.svg`);
}

function specOf(plot: {
  title: string;
  subtitle: string;
  unit: string;
  points: readonly Point[];
}): TopLevelSpec {
  const contexts = [...new Set(plot.points.map(({ context }) => context))];
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: { text: plot.title, subtitle: plot.subtitle, anchor: 'start' },
    width: 520,
    height: 320,
    background: 'white',
    data: { values: [...plot.points] },
    mark: { type: 'line', point: true },
    encoding: {
      x: {
        field: 'context',
        type: 'quantitative',
        title: 'position in the context (tokens)',
        scale: { type: 'linear' },
        axis: {
          values: contexts.filter((tokens) => tokens >= 8192),
          labelExpr: "datum.value / 1024 + 'K'",
          grid: false,
        },
      },
      y: { field: 'cost', type: 'quantitative', title: plot.unit },
      color: {
        field: 'attention',
        type: 'nominal',
        title: 'attention',
        scale: { domain: ['sparse', 'dense'], range: ['#0b6e4f', '#c8553d'] },
      },
    },
  };
}
