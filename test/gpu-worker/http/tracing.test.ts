/** The worker's spans in the trace of a request. */
import { expect, test } from 'vitest';
import { createOtlpTracing } from '../../../infra/tracing/otlp-tracing.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import { attributesOf, startCollector } from '../../support/otlp-collector.ts';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const edgeSpan = 'b7ad6b7169203331';

test.each([false, true])('a request (stream: %s) is a span under the edge’s', async (stream) => {
  const collector = await startCollector();
  const { endpoint } = collector;
  const tracing = createOtlpTracing({ service: 'sift-worker', endpoint, headers: {}, ratio: 1 });
  await using worker = await httpWorker({ script: answering('x'), tracing });
  const answer = await worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      traceparent: `00-${traceId}-${edgeSpan}-01`,
    },
    body: JSON.stringify({
      model: 'tiny',
      stream,
      messages: [{ role: 'user', content: 'my secret prompt' }],
    }),
  });
  await answer.text();
  await tracing.close();

  const root = collector.spans.find((span) => span.parentSpanId === edgeSpan);
  if (root === undefined) throw new Error('there is such a span');
  expect(root).toMatchObject({ name: 'POST /v1/chat/completions', traceId });
  expect(attributesOf(root)).toMatchObject({ 'http.response.status_code': 200 });
  expect(attributesOf(root)['gen_ai.usage.output_tokens']).toBeGreaterThan(0);
  const children = collector.spans.filter((span) => span.parentSpanId === root.spanId);
  expect(children.map(({ name }) => name)).toEqual(['queue', 'prefill', 'decode']);
});
