/** Dashboards and alerts ask for metrics and labels that the programs have. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { createEdgeMetrics } from '../../edge/node/edge-metrics.ts';
import { createLifecycle } from '../../gpu-worker/http/lifecycle.ts';
import { createMetrics } from '../../gpu-worker/http/metrics.ts';

const infra = join(import.meta.dirname, '../../infra');
const dashboardSchema = z.object({
  panels: z.array(
    z.object({
      id: z.int(),
      title: z.string(),
      gridPos: z.object({ x: z.int(), y: z.int(), w: z.int(), h: z.int() }),
      targets: z.array(z.object({ expr: z.string() })),
    }),
  ),
});
type Panel = z.infer<typeof dashboardSchema>['panels'][number];

function panelsOf(name: string): readonly Panel[] {
  const text = readFileSync(join(infra, `grafana/${name}.json`), 'utf8');
  return dashboardSchema.parse(JSON.parse(text)).panels;
}

/** The metrics of the programs, histograms by the names of their series too. */
async function knownMetrics(): Promise<ReadonlySet<string>> {
  const edge = createEdgeMetrics({
    fleet: { status: async () => [], waitingRequests: () => 0 },
    takeLongestBlockMs: async () => 0,
  });
  const worker = createMetrics({
    lifecycle: createLifecycle(),
    version: '0.0.0',
    journalErrors: () => 0,
  });
  const texts = [await edge.text(), await worker.text()].join('\n');
  const types = [...texts.matchAll(/^# TYPE (\w+) (\w+)$/gm)];
  return new Set(
    types.flatMap(([, name = '', type]) =>
      type === 'histogram' ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
}

const metricsIn = (text: string): string[] => text.match(/\b(?:sift|process)_[a-z_]+\b/g) ?? [];

test('each expression names metrics that an edge or a worker has', async () => {
  const known = await knownMetrics();
  const alerts = readFileSync(join(infra, 'prometheus/alerts.yaml'), 'utf8');
  const expressions = ['edge', 'worker']
    .flatMap((name) => panelsOf(name))
    .flatMap(({ targets }) => targets.map(({ expr }) => expr));
  const asked = [alerts, ...expressions].flatMap(metricsIn);
  expect(asked.length).toBeGreaterThan(50);
  expect(asked.filter((name) => !known.has(name))).toEqual([]);
});

test('each metric of ours is on a dashboard, but for histograms of what others show', async () => {
  const known = await knownMetrics();
  const shown = new Set(
    ['edge', 'worker']
      .flatMap((name) => panelsOf(name))
      .flatMap(({ targets }) => targets.flatMap(({ expr }) => metricsIn(expr)))
      .map((name) => name.replace(/_bucket$/, '')),
  );
  const ours = [...known].filter(
    (name) => name.startsWith('sift_') && !/_(bucket|sum|count)$/.test(name),
  );
  const notShown = ['sift_http_request_duration_seconds', 'sift_tokens_in_flight'];
  expect(ours.filter((name) => !shown.has(name)).toSorted()).toEqual(notShown);
});

test.each(['edge', 'worker'])('no panels of the dashboard %s lie over one another', (name) => {
  const panels = panelsOf(name);
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const taken = new Set<string>();
  for (const { gridPos, title } of panels) {
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(taken.has(`${x} ${y}`), title).toBe(false);
        taken.add(`${x} ${y}`);
      }
    }
  }
});
