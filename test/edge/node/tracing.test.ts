/** The trace of a request through the edge, as a collector gets it. */
import { expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import { seedModel } from '../../support/edge/seed.ts';
import { attributesOf, startCollector } from '../../support/otlp-collector.ts';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const clientSpan = 'b7ad6b7169203331';
const traceparent = `00-${traceId}-${clientSpan}-01`;

async function startTraced(env: Readonly<Record<string, string>> = {}) {
  const collector = await startCollector();
  const system = await startRuntimeSystem({
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint, ...env },
  });
  return { collector, system };
}

test('a request is a span of its client’s trace, with its stages, and the worker’s are under it', async () => {
  const { collector, system } = await startTraced({
    OTEL_EXPORTER_OTLP_HEADERS: 'x-api-key=a%20b',
  });
  const answer = await system.ask('acme', { stream: true }, { traceparent });
  await answer.text();
  await system.stop();

  const ofTrace = collector.spans.filter((span) => span.traceId === traceId);
  const root = ofTrace.find((span) => span.parentSpanId === clientSpan);
  if (root === undefined) throw new Error('there is such a span');
  expect(root.name).toBe('POST /v1/chat/completions');
  expect(attributesOf(root)).toMatchObject({
    'http.response.status_code': 200,
    'gen_ai.request.model': seedModel,
    'gen_ai.usage.input_tokens': expect.any(Number),
    'gen_ai.response.id': answer.headers.get('x-request-id'),
    'sift.tenant': 'acme',
  });
  const children = ofTrace.filter((span) => span.parentSpanId === root.spanId);
  expect(children.map(({ name }) => name)).toEqual([
    'authenticate',
    'admit',
    'queue',
    'prefill',
    'decode',
    'settle',
  ]);
  for (const { startTimeUnixNano, endTimeUnixNano } of children) {
    expect(startTimeUnixNano).toBeGreaterThanOrEqual(root.startTimeUnixNano);
    expect(endTimeUnixNano).toBeLessThanOrEqual(root.endTimeUnixNano);
  }
  const [sent] = system.stub.requests;
  expect(sent?.headers['traceparent']).toBe(`00-${traceId}-${root.spanId}-01`);
  const [request] = collector.headers;
  expect(request).toMatchObject({ path: '/v1/traces', 'x-api-key': 'a b' });
  const told = JSON.stringify(collector.spans, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  expect(told).not.toContain('Hi.');
  expect(told).not.toContain(system.keys.acme);
});

test('a request that fails says by which error', async () => {
  const { collector, system } = await startTraced();
  system.stub.script = { ...plainScript, fault: { kind: 'die', event: 1 } };
  const answer = await system.ask('acme', {}, { traceparent });
  expect(answer.status).toBeGreaterThanOrEqual(500);
  await system.stop();
  const root = collector.spans.find((span) => span.parentSpanId === clientSpan);
  expect(root && attributesOf(root)).toMatchObject({
    'error.type': expect.any(String),
    'http.response.status_code': answer.status,
  });
  expect(root?.status.code).toBe(2);
});

test('of traces that begin here the stated part is sent, others go by their beginning', async () => {
  const { collector, system } = await startTraced({ OTEL_TRACES_SAMPLER_ARG: '0' });
  await system.ask('acme');
  await system.ask('acme', {}, { traceparent: traceparent.replace(/01$/, '00') });
  await system.ask('acme', {}, { traceparent });
  await system.stop();
  expect(new Set(collector.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
  expect(collector.spans.filter((span) => span.parentSpanId === clientSpan)).toHaveLength(1);
});

test('a collector that is gone costs requests nothing', async () => {
  const { system } = await startTraced({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' });
  expect((await system.ask('acme')).status).toBe(200);
  await system.stop();
});

test('a worker is sent no trace where none is made', async () => {
  const system = await startRuntimeSystem();
  await system.ask('acme', {}, { traceparent });
  expect(system.stub.requests[0]?.headers).not.toHaveProperty('traceparent');
  await system.stop();
});
