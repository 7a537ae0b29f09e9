/** The trace of a request through the edge in workerd, as a collector gets it. */
import { expect, onTestFinished, test } from 'vitest';
import { startWorkerd, testSecrets } from '../../support/edge/runtime-workerd.ts';
import { testFolder } from '../../support/edge/runtime-node.ts';
import { attributesOf, startCollector } from '../../support/otlp-collector.ts';
import { seededEdge } from './end-to-end-runtimes.ts';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const clientSpan = 'b7ad6b7169203331';

test('requests, with an Idempotency-Key or without, are one span each of their clients’ trace', async () => {
  const collector = await startCollector();
  const folder = testFolder();
  onTestFinished(folder.remove);
  const runtime = await startWorkerd({
    folder: folder.path,
    settings: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint },
  });
  const edge = await seededEdge({
    url: runtime.url,
    adminToken: testSecrets.EDGE_ADMIN_TOKEN,
    workerToken: testSecrets.WORKER_TOKEN,
    close: () => runtime.close(),
  });
  onTestFinished(() => edge.close());
  const ask = (headers: Readonly<Record<string, string>>) =>
    fetch(`${edge.baseUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${edge.apiKey}`,
        'content-type': 'application/json',
        traceparent: `00-${traceId}-${clientSpan}-01`,
        ...headers,
      },
      body: JSON.stringify({ model: edge.model, messages: [{ role: 'user', content: 'Hi.' }] }),
    });
  const answers = [await ask({}), await ask({ 'idempotency-key': 'once' })];
  for (const answer of answers) expect(answer.status).toBe(200);
  const roots = () => collector.spans.filter((span) => span.parentSpanId === clientSpan);
  await expect.poll(() => roots().length).toBeGreaterThanOrEqual(2);
  const ids = roots().map((span) => attributesOf(span)['gen_ai.response.id']);
  expect(ids).toEqual(answers.map((answer) => answer.headers.get('x-request-id')));
});
